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

# A small grammar of how captions name gestures, as regular expressions.
ARTICLE = r"(?:a|an|the|his|her|their|its|my|one|both)"
COUNT = r"(?:one|two|three|four|five|[1-5])"
WHOSE = rf"(?:(?:{ARTICLE}|{COUNT}|left|right|other|open|closed|index|middle|ring|little|pinky) )*"
PART = r"(?:fingers?|thumbs?|palms?|pinky|pinkies|hands?)(?: and (?:[a-z]+ )?(?:fingers?|thumbs?))?"
UP = r"(?:up|out|down|raised|extended|crossed|together)(?! hand)(?: in the air)?"
BY_HAND = rf"(?: (?:with|using|by) {WHOSE}(?:hands?|fingers?)(?! gesture))?"
AT = r"(?:at|to|towards?) the (?:camera|viewer|sky|ceiling)"
SIGN = r"(?:hand )?(?:signs?|gestures?|symbols?|signals?|salutes?)"
VERB = (
    r"(?:(?:giv|mak|show|do|flash|rais|display|form|sign|us|perform|throw|hold|present)ing(?: up| out)?"
    r"|gives|makes|shows|does|flashes|raises|displays|forms|uses|performs|throws(?: up)?|holds up|with)"
)
RAISING = (
    r"(?:raising|raises|lifting|lifts|waving|waves|crossing|crosses|extending|extends|snapping|clapping|wiggling"
    r"|(?:holding|holds|sticking|sticks|putting|puts|throwing|throws) (?:up|out))"
)
# Names that mean a hand wherever they stand, and names that do so only after a verb ("stop sign", "heart").
SURE = (
    rf"(?:{WHOSE}(?:double )?thumbs?(?: is| are)?[ -](?:up|down|sideways)(?: {SIGN})?"
    rf"|(?:inverted |reversed? )?(?:peace|victory|v|ok|okay|shaka|devil|horns|hang loose|i love you)[ -]{SIGN}"
    rf"|(?:rock(?: and |-and-| n | 'n' |-n-| & )roll|rock on|devil horns?|metal|call me) {SIGN}"
    rf"|(?:tele)?phone(?: call)? {SIGN}"
    rf"|(?:finger guns?|middle finger|high[ -]five|folded hands|crossed fingers|shaka)(?: {SIGN})?"
    rf"|(?:[\w-]+ ){{0,2}}hand (?:signs?|gestures?|symbols?|signals?)"
    rf"|(?:(?:clenched|raised|closed|tight) )*fists?|open palms?)"
)
UNSURE = (
    rf"(?:(?:[\w-]+ ){{0,2}}(?:gestures?|sign language)"
    rf"|(?:stop|rock|heart|gun|call|calling|time[ -]?out|silence|mute|quiet|number {COUNT}|{COUNT}|x) {SIGN}"
    r"|(?:heart|peace|horns)(?= with| using|$))"
)
NO_HAND = r"(?! (?:necklace|t-?shirt|shirt|tattoo|sticker|poster|earring|logo|emoji|tree|bump|fight)s?\b)"
PATTERNS = (
    rf"(?:{VERB} )?(?:{ARTICLE} )?{SURE}\b{NO_HAND}{BY_HAND}",
    rf"{VERB} (?:{ARTICLE} )?{UNSURE}\b{NO_HAND}{BY_HAND}",
    rf"{RAISING} {WHOSE}{PART}(?: {UP})?{BY_HAND}",
    rf"(?:holding|holds|sticking|sticks|putting|puts|with|has|having) {WHOSE}{PART}(?: is| are)? {UP}",
    rf"(?:showing|shows) {COUNT} {PART}(?: {UP})?",
    rf"(?:with|putting|puts|holding|holds|placing) {WHOSE}fingers? (?:on|to|over|in front of) {WHOSE}(?:lips?|mouth)",
    rf"(?:pointing|points)(?: (?:up|down|forward|sideways|upwards?))?(?: {AT})?{BY_HAND}",
    rf"(?:waving|waves|saluting|gesturing|giving the finger|flipping (?:off|the bird))(?: {AT})?",
)
GESTURE = re.compile(rf"(?<!\w)(?:{'|'.join(PATTERNS)})(?!\w)", re.IGNORECASE)


def gesture_mentions(text: str) -> list[str]:
    """The places where a text names a hand gesture, each with the verb that leads to it ("giving the peace sign")."""
    return [match.group() for match in GESTURE.finditer(text)]
