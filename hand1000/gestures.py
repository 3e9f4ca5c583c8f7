"""The phrase that names each gesture in a caption, and finding gestures that a caption already names."""

import re

PHRASES = {
    # HaGRID v1
    "call": "making phone call hand gesture",
    "dislike": "giving thumbs down hand gesture",
    "fist": "making fist hand gesture",
    "four": "showing four fingers hand gesture",
    "like": "giving thumbs up hand gesture",
    "mute": "making silence hand gesture",
    "ok": "making ok sign hand gesture",
    "one": "showing one finger hand gesture",
    "palm": "showing open palm hand gesture",
    "peace": "making peace sign hand gesture",
    "peace_inverted": "making inverted peace sign hand gesture",
    "rock": "making rock sign hand gesture",
    "stop": "making stop sign hand gesture",
    "stop_inverted": "making inverted stop sign hand gesture",
    "three": "showing three fingers hand gesture",
    "three2": "showing thumb and two fingers hand gesture",
    "two_up": "showing two fingers up hand gesture",
    "two_up_inverted": "showing two inverted fingers up hand gesture",
    # new in HaGRID v2
    "grabbing": "making grabbing hand gesture",
    "grip": "making grip hand gesture",
    "hand_heart": "making heart with both hands gesture",
    "hand_heart2": "making round heart with both hands gesture",
    "holy": "making folded hands gesture",
    "little_finger": "showing little finger hand gesture",
    "middle_finger": "showing middle finger hand gesture",
    "point": "making pointing hand gesture",
    "take_picture": "making take a picture hand gesture",
    "three3": "showing three lower fingers hand gesture",
    "three_gun": "making finger gun hand gesture",
    "thumb_index": "showing thumb and index finger hand gesture",
    "thumb_index2": "showing both thumbs and index fingers hand gesture",
    "timeout": "making time out hand gesture",
    "xsign": "making crossed arms hand gesture",
}

# A small grammar, as regular expressions, of the ways in which captions name gestures, for the English of captioning
# models. What it takes for a gesture is replaced, so it leaves alone what may be something else ("a stop sign on a
# street", "ocean waves").
ARTICLE = r"(?:a|an|the|his|her|their|its|my|both)"
COUNT = r"(?:one|two|three|four|five|[1-5])"
A = rf"(?:(?:{ARTICLE}|one) )?"
# No word may fit two parts of a repeated group, or each such word of a caption doubles the time.
WHOSE = rf"(?:(?:{ARTICLE}|{COUNT}|of|left|right|other|open|closed|raised|outstretched|index|ring|little|pinky) )*"
PART = r"(?:(?:middle )?fingers?|thumbs?|palms?|pinky|pinkies|hands?)(?: and (?:[a-z]+ )?(?:fingers?|thumbs?))?"
UP = r"(?:up|out|down|raised|extended|crossed|spread(?: out)?)(?! hand)(?: in the air)?"
AT = r"(?:at|to|towards?) the (?:camera|viewer|sky|ceiling)"
BY_HAND = rf"(?: (?:with|using|by) {WHOSE}(?:hands?|fingers?)(?! gesture))?"
SIGN = r"(?:hand )?(?:signs?|gestures?|symbols?|signals?|salutes?)"
DO = (
    r"(?:(?:giv|mak|show|do|flash|rais|display|form|sign|us|perform|throw|present)ing(?: up| out)?"
    r"|gives|makes|shows|does|flashes|raises|displays|forms|uses|performs|throws(?: up)?)"
    r"(?: (?:each other|him|her|them|someone|us)(?= (?:a|an|the|high) ))?"
)
HOLD = r"(?:(?:holding|holds|sticking|sticks|putting|puts) (?:up|out)|holding|holds|with)"
RAISE = (
    r"(?:raising|raises|lifting|lifts|waving|waves|crossing|crosses|extending|extends|snapping|clapping|wiggling"
    r"|(?:holding|holds|sticking|sticks|putting|puts|throwing|throws) (?:up|out))"
)
SHAPE = r"(?:heart|circle|gun|phone call|v|o|c|l|x)"
# SURE: names that mean a hand wherever they stand; UNSURE: only after a verb ("making a stop sign").
KIND = (
    rf"(?:peace|victory|ok|okay|shaka|devil|horns?|hang loose|i love you|rock(?:(?: and |-and-| n | 'n' |-n-| & )roll)?"
    rf"|rock on|metal|call me|(?:tele)?phone(?: call)?|stop|heart|gun|silence|mute|shh|quiet|number {COUNT}|{COUNT}|v|x"
    rf"|pointing|thumbs? (?:up|down)|open palm|palm|fist|good luck|rude|funny|friendly|strange|inverted|vulcan)"
)
SURE = (
    rf"(?:{WHOSE}(?:double )?thumbs?(?: is| are)?(?: ?- ?| )(?:up|down|sideways)(?: {SIGN})?"
    rf"|(?:inverted |reversed? )?['\"‘“]?(?:peace|victory|v|ok|okay|shaka|devil|horns|hang loose|i love you|shh)"
    rf"['\"’”]?[ -]{SIGN}"
    rf"|(?:rock(?: and |-and-| n | 'n' |-n-| & )roll|rock on|devil horns?|metal|call me|vulcan) {SIGN}"
    rf"|(?:tele)?phone(?: call)? {SIGN}"
    rf"|(?:finger guns?|high[ -]fives?|folded hands|crossed fingers|shaka)(?: {SIGN})?"
    rf"|(?:{KIND} )*hand (?:signs?|gestures?|symbols?|signals?)"
    rf"|(?:(?:clenched|raised|closed|tight) )*fists?|open palms?|raised (?:hand|finger|thumb|palm)s?"
    rf"|{WHOSE}palms? facing (?:the )?(?:camera|viewer|out|up|forwards?)"
    rf"|{WHOSE}fingers? (?:up )?in the air|{WHOSE}hands? in the shape of an? \w+)"
)
UNSURE = (
    rf"(?:(?:[\w-]+ ){{0,2}}(?:gestures?|sign language)"
    rf"|(?:stop|rock|heart|gun|call|calling|time[- ]?out|silence|mute|quiet|number {COUNT}|{COUNT}|x) {SIGN}"
    rf"|{SHAPE}(?: shape| sign)? (?:with|using) {WHOSE}(?:hands?|fingers?)|signs? of (?:the )?\w+"
    rf"|(?:number )?{COUNT}(?= with|$)|number {COUNT}|time[- ]?out|middle finger|open hands?"
    r"|(?:heart|peace|horns|ok|okay|victory)(?= with| using|$))"
)
NO_HAND = (
    r"(?! (?:necklace|t-?shirt|shirt|sweater|sweatshirt|hoodie|jacket|hat|cap|tattoo|sticker|poster|earring|logo|emoji"
    r"|tree|bump|fight)s?\b| on (?:it|the|a|her|his|their|its)\b)"
)
PATTERNS = (
    rf"(?:(?:{DO}|{HOLD}) )?{A}{SURE}\b{NO_HAND}{BY_HAND}",
    rf"{DO} {A}{UNSURE}\b{NO_HAND}{BY_HAND}",
    rf"(?:holding|holds) (?:up|out) {A}(?:number {COUNT}|middle finger)\b{BY_HAND}",
    rf"{RAISE} {WHOSE}{PART}(?: {UP})?{BY_HAND}",
    rf"(?:holding|holds|sticking|sticks|putting|puts|with|has|having) {WHOSE}{PART}(?: is| are)? {UP}",
    rf"(?:showing|shows) {WHOSE}(?:{COUNT} )?(?:middle )?(?:fingers?|thumbs?|palms?)(?: {UP})?",
    rf"with {COUNT} fingers?",
    rf"(?:holding|holds) {WHOSE}hands? (?:like|as) (?:a |an )?\w+",
    rf"(?:with|putting|puts|holding|holds|placing) {WHOSE}fingers? (?:on|to|over|in front of) {WHOSE}(?:lips?|mouth)",
    rf"pointing(?: {WHOSE}(?:fingers?|hands?|thumbs?))?(?: (?:up|down|forward|sideways|upwards?))?"
    rf"(?: (?:at|to|towards?) {WHOSE}\w+)?{BY_HAND}",
    rf"waving(?: (?:{AT}|goodbye|hello))?(?! (?:a|an|the|his|her|their|two) )",
    rf"(?:waves|points) {AT}",
    rf"(?:saluting|gesturing|giving the finger|flipping (?:off|the bird))(?: {AT})?",
)
# The project's own phrases come first: a shorter pattern would take only a part of one.
OWN = "|".join(re.escape(phrase) for phrase in sorted(PHRASES.values(), key=len, reverse=True))
GESTURE = re.compile(rf"(?<![\w'’])(?:{OWN}|{'|'.join(PATTERNS)})(?!\w)", re.IGNORECASE)


def gesture_mentions(text: str) -> list[str]:
    """The places where a text names a hand gesture, each with the verb that leads to it ("giving the peace sign")."""
    return [match.group() for match in GESTURE.finditer(text)]
