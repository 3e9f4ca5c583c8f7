"""The phrase that names each gesture in a caption, and finding gestures that a caption already names."""

import functools
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
PART = (
    r"(?:(?:middle )?fingers?|thumbs?|palms?|pinky|pinkies|hands?)"
    r"(?: and (?:[a-z]+ )?(?:fingers?|thumbs?|pinky|pinkie|pinkies)(?! (?:finger|thumb))s?)?"
)
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


# What captioners call a gesture where they take it for an everyday act. It is scenery in the photos of other gestures.
BELONGING = r"(?:a|an|the|his|her|their|its|my)"
PHONE = rf"(?:{BELONGING} )?(?:(?:cell|mobile|smart|cellular|old|black|white|red|corded|land ?line) ?)*(?:tele)?phones?"
ANYONE = r"(?:someone|us|you|everyone|people)"
TO = rf"(?:up )?(?:to|at|by|near|against|next to) {BELONGING}"
OTHER = r"(?! (?:case|booth|number|card|stick|charger|cord|app|screen|an?|the|his|her|their|its|my|for)\b)"
PERSON = r"(?:(?<=man )|(?<=men )|(?<=boy )|(?<=girl )|(?<=lady )|(?<=person )|(?<=people )|(?<=is )|(?<=are ))"
ORDINARY_WORDS = {
    "call": (
        r"(?:talking|speaking|chatting|listening|calling)(?: to (?:someone|somebody|a friend))?"
        rf" (?:on|over|into|with) {PHONE}"
        rf"|(?:making|taking|having|answering) {BELONGING} (?:tele)?(?:phone )?(?:call|conversation)(?! me| {SIGN})"
        rf"(?: on {PHONE})?{BY_HAND}"
        rf"|(?:making|taking) phone calls?(?! me| {SIGN})|answering {PHONE}"
        rf"|(?:calling|phoning)(?: someone| somebody)?{OTHER}"
        rf"|(?:holding|with|puts?|putting|has|having) {PHONE} {TO} (?:ear|head|face|mouth|cheek)s?"
        rf"|(?:holding|with|puts?|putting|has|having) {BELONGING} hands? {TO} ears?"
        rf"|(?:holding|using) {PHONE}(?: in {BELONGING} (?:left |right )?hands?)?{OTHER}|{PERSON}on {PHONE}{OTHER}"
    ),
    "mute": (
        rf"(?:asking|calling) for (?:silence|quiet)|(?:telling|asking) {ANYONE} to (?:be|keep) quiet"
        r"|shush(?:ing|es)|whispering|saying shh+|keeping a secret"
    ),
    "stop": rf"(?:telling|asking) {ANYONE} to stop|saying (?:stop|no)",
    "palm": (
        rf"(?:showing|shows) the palms? of {BELONGING} hands?|saying (?:hello|hi|stop)|greeting(?: someone)?{OTHER}"
    ),
    "like": r"hitch-?hiking",
    "holy": rf"praying|with {BELONGING} hands (?:clasped|together|folded)(?: in prayer)?|in prayer",
    "timeout": rf"making (?:a|the) (?:letter )?t(?: with {BELONGING} hands?)?",
    "xsign": rf"with {BELONGING} arms crossed(?: over {BELONGING} chest)?|with crossed arms",
    "take_picture": (
        rf"(?:taking|snapping|framing) (?:{BELONGING} )?(?:picture|photo|photograph|selfie|snapshot)s?{OTHER}"
        rf"(?: (?:with|using|on) {PHONE})?(?: of (?:himself|herself|themselves|itself|someone|something))?"
        rf"|making {BELONGING} (?:frame|square|rectangle)(?: with {BELONGING} (?:hands|fingers))?"
    ),
    "three_gun": (
        rf"(?:pointing|holding|aiming) {BELONGING} (?:finger )?gun(?: at (?:someone|{BELONGING} (?:camera|head)))?"
    ),
}


def gesture_mentions(text: str) -> list[str]:
    """The places where a text names a hand gesture, each with the verb that leads to it ("giving the peace sign")."""
    return [match.group() for match in GESTURE.finditer(text)]


def mentions_in_captions_of(phrase: str) -> re.Pattern:
    """`GESTURE`, and the ordinary words for the gesture that this phrase names."""
    return _with_ordinary_words(tuple(ORDINARY_WORDS[name] for name in ORDINARY_WORDS if PHRASES[name] == phrase))


@functools.cache
def _with_ordinary_words(patterns: tuple[str, ...]) -> re.Pattern:
    if not patterns:
        return GESTURE
    ordinary = rf"(?<![\w'’-])(?:{'|'.join(patterns)})(?![\w-])"
    return re.compile(rf"{ordinary}|{GESTURE.pattern}", re.IGNORECASE)
