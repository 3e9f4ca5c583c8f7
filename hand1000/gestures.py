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
# No word may fit two parts of a repeated group, or each such word of a caption doubles the time; and no group is
# repeated without a limit, or the time grows with the square of a text in which a language model repeats itself.
SIDE = r"(?:left|right|index|middle|ring|little|pinky)"
WHICH = rf"(?:all|thumb,|of|other|open|closed|raised|outstretched|{SIDE}(?: and {SIDE})?)"
WHOSE = rf"(?:(?:{ARTICLE}|{COUNT}|{WHICH}) ){{0,8}}"
PART = (
    r"(?:fingers?|thumbs?|palms?|pinky|pinkies|hands?|fists?)"
    r"(?: and (?:[a-z]+ )?(?:fingers?|thumbs?|pinky|pinkie|pinkies)(?! (?:finger|thumb))s?)?"
)
UP = (
    r"(?:(?:(?:pointing )?(?:up|out|down)(?:wards?)?|raised|extended|crossed|spread(?: out)?)(?! hand)(?: in the air)?"
    r"|in the air)"
)
AT = r"(?:at|to|towards?) the (?:camera|viewer|sky|ceiling)"
SIGN = r"(?:hand )?(?:signs?|gestures?|symbols?|signals?|salutes?)"
PRAYER = r"in (?:a )?prayer(?: pose| position)?"
IN_A_SIGN = rf"(?: (?:in|into|forming) (?:a|an|the) (?:[\w-]+ ){{0,2}}(?:{SIGN}|shape)| {PRAYER})"
LIPS = rf"(?: (?:on|to|over|across|against|in front of) {WHOSE}(?:lips?|mouth){IN_A_SIGN}?)"
TO_FACE = r"(?: to (?:his|her|their|its) (?:face|head|ear|cheek)s?(?! (?:mask|shield|paint)))"
# Where a hand is all that is said of it: no hand cream, no hands full.
ALONE = r"(?= (?:in|at|near|by|while|and|to|outside)\b|[,.;!?)]|$)"
FREE = r"(?! (?:gesture|facing|full|trees?|lea(?:f|ves)|(?:in|on|at) (?:his|her|their|its|my))\b)"  # hands, not busy
BY_HAND = (
    rf"(?: (?:with|using|by) {WHOSE}{PART}(?:{LIPS}| {UP}|{FREE})"
    rf"| on (?:his|her|their|one|both) (?:{SIDE} )?hands?| with the backs? of {WHOSE}hands?)?"
)
TOGETHER = rf"(?: (?:with {WHOSE}fingers )?(?:together|apart|spread(?: apart)?))"
TO_SAY = rf"(?:(?: as if)? to (?:say (?:hello|hi|stop|no|goodbye|bye)|show {WHOSE}{PART}))"
DO = (
    r"(?:(?:giv|mak|show|do|flash|rais|display|form|sign|us|perform|throw|present)ing(?: up| out)?"
    r"|gives|makes|shows|does|flashes|raises|displays|forms|uses|performs|throws(?: up)?)"
    r"(?: (?:each other|him|her|them|someone|us|the camera|the viewer)(?= (?:a|an|the|high|two) ))?"
)
HOLD = r"(?:(?:holding|holds|sticking|sticks|putting|puts) (?:up|out)|holding|holds|with)"
RAISE = (
    r"(?:(?:rais|lift|pump|clench|cross|extend)ing|raises|lifts|pumps|clenches|crosses|extends"
    r"|snapping|clapping|wiggling|(?:holding|holds|sticking|sticks|putting|puts|throwing|throws) (?:up|out))"
)
SHAPE = r"(?:heart|circle|zero|pistol|gun|phone call|(?:bunny|rabbit)(?: ears)?|(?:letter )?[a-z])"
THING = r"(?:(?:tele)?phone|ring|hole|triangle|square)"  # a shape only where hands make it
QUOTE = "['\"‘’“”]"
INVERTED = r"(?:inverted|reversed?|upside[- ]down|backwards?)"
ROCK_AND_ROLL = r"rock(?: and |-and-| n | 'n' |-n-| & )roll"
# SURE: names that mean a hand wherever they stand; UNSURE: only after a verb ("making a stop sign").
KIND = (
    rf"(?:peace|victory|(?:a ?- ?)?ok|okay|shaka|devil|horns?|hang loose|i love you"
    rf"|{ROCK_AND_ROLL}|rock on|rock|(?:heavy )?metal|call me|(?:tele)?phone(?: call)?|stop|heart|gun"
    rf"|silence|mute|shh|s?hush|quiet|number {COUNT}|{COUNT}|v|x|{INVERTED}"
    rf"|pointing|thumbs? (?:up|down)|open palm|palm|fist|good luck|rude|funny|friendly|strange|vulcan)"
)
SURE = (
    rf"(?:{WHOSE}(?:(?:double|big|huge) )?thumbs?(?: is| are)?(?: ?- ?| )(?:up|down|sideways)(?: {SIGN})?"
    rf"|(?:{INVERTED} )?{QUOTE}?(?:peace|victory|v|(?:a ?- ?)?ok|okay|shaka|devil|horns|hang loose|i love you"
    rf"|shh|call me){QUOTE}?[ -]{SIGN}"
    rf"|(?:{ROCK_AND_ROLL}|rock on|devil horns?|(?:heavy )?metal|vulcan) {SIGN}"
    rf"|(?:tele)?phone(?: call)? {SIGN}"
    rf"|(?:finger guns?|high[ -]fives?|folded hands|crossed fingers|shaka)(?: {SIGN})?"
    rf"|(?:open )?(?:{QUOTE}?{KIND}{QUOTE}? ){{0,4}}hand (?:signs?|gestures?|symbols?|signals?)"
    rf"|(?:(?:clenched|raised|closed|tight) ){{0,4}}fists?(?: {UP})?|open palms?|raised (?:hand|finger|thumb|palm)s?"
    rf"|{WHOSE}palms? facing (?:the )?(?:camera|viewer|out|up|forwards?)"
    rf"|{WHOSE}(?:fingers?|thumbs?) (?:up )?in the air|{WHOSE}hands? in the shape of an? \w+)"
)
UNSURE = (
    rf"(?:(?:{QUOTE}?[\w-]+{QUOTE}? ){{0,2}}(?:gestures?|sign language)"
    rf"|{QUOTE}?(?:stop|rock|heart|gun|call|calling|time[- ]?out|silence|mute|quiet|s?hush|number {COUNT}|{COUNT}"
    rf"|letter [a-z]|x|like|surf(?:er|ing)?(?:'s)?|perfect|hello|money|loser|zero|bunny|scout|scissors?|gang)"
    rf"{QUOTE}? {SIGN}"
    rf"|(?:[\w-]+ ){{1,2}}{SIGN}(?= (?:with|using) (?:his|her|their|one|the) (?:{SIDE} )?(?:hand|finger|fingers)\b)"
    rf"|{SHAPE}(?: shape| sign)? (?:with|using) {WHOSE}{PART}|signs? of (?:the )?\w+"
    rf"|v for victory|(?<!its )(?:devil(?:'?s)? )?horns|{COUNT}[ -]fingers? {SIGN}|(?:bunny|rabbit) ears|fist bumps?"
    rf"|(?:number )?{COUNT}(?= with|$)|number {COUNT}|time[- ]?out|middle finger|open hands?"
    r"|(?:heart|peace|ok|okay|victory)(?= with| using|$))"
)
CLOTHES = r"t-?shirt|shirt|sweater|sweatshirt|hoodie|jacket|hat|cap"
NO_HAND = (
    rf"(?! (?:{CLOTHES}|necklace|tattoo|sticker|poster|earring|logo|emoji|tree|bump|fight|headband)s?\b"
    rf"| on (?:it|(?:the|a|her|his|their|its) (?:{CLOTHES}|front|back|side|wall|pole|post|screen|sleeve|bag|backpack"
    r"|chest|door|window|building|flag|banner|card))\b)"
)
# Of a sign that nobody is said to make.
NO_PRINT = r"(?!(?: printed| painted| drawn)? on (?:the|a|her|his|their|its|it)\b)"
AND_ANOTHER = rf"(?: (?:and|or) {A}(?:{SURE}|(?:rock|stop|heart) {SIGN}(?! on\b| behind\b| in the back))\b{NO_HAND})?"
PATTERNS = (
    rf"{DO} {A}{SURE}\b{NO_HAND}{AND_ANOTHER}{BY_HAND}",
    rf"(?:{HOLD} )?{A}{SURE}\b{NO_HAND}{NO_PRINT}{BY_HAND}",
    rf"{DO} {A}{UNSURE}\b{NO_HAND}{AND_ANOTHER}{BY_HAND}",
    rf"(?:making|makes|forming|forms) {A}{THING}(?: shape)? (?:with|using) {WHOSE}{PART}",
    rf"(?:turning|turns) {WHOSE}thumbs? (?:up|down)",
    rf"(?:holding|holds) (?:up|out) {A}(?:number {COUNT}|middle finger)\b{BY_HAND}",
    rf"{RAISE} {WHOSE}{PART}(?: {UP})?{TOGETHER}?(?:{IN_A_SIGN}|{LIPS}|{TO_FACE}|{TO_SAY}|{BY_HAND})",
    rf"(?:holding|holds|sticking|sticks|putting|puts|with|has|having) {WHOSE}{PART}(?: is| are)? {UP}{TOGETHER}?"
    rf"{NO_HAND}(?:{IN_A_SIGN}|{LIPS}|{TO_FACE})?",
    rf"(?:holding|holds|with|has|having) {WHOSE}{PART}(?: together)?{IN_A_SIGN}",
    rf"(?:showing|shows) {WHOSE}(?:fingers?|thumbs?|palms?)(?: {UP})?{BY_HAND}",
    rf"(?:showing|shows) (?:{ARTICLE} )?backs? of {WHOSE}hands?{NO_HAND}",
    rf"(?:(?:showing|shows) (?:his|her|their|both)(?: {SIDE})? hands?(?: {UP})?{IN_A_SIGN}?"
    rf"|with an open hand|making a face with {WHOSE}hands?){ALONE}",
    rf"with {COUNT} fingers?|counting (?:on|with) {WHOSE}fingers(?: and toes)?",
    rf"(?:holding|holds) {WHOSE}hands? (?:like|as) (?:a |an )?\w+",
    rf"(?:with|putting|puts|holding|holds|placing|pressing|presses) {WHOSE}fingers?{LIPS}",
    rf"pointing(?: {WHOSE}(?:fingers?|hands?|thumbs?))?(?: (?:(?:up|down|for)(?:wards?)?|sideways|in the air))?"
    rf"(?: (?:at|to|towards?) {WHOSE}\w+)?(?: like a gun)?{BY_HAND}",
    rf"waving(?: {WHOSE}(?:hands?|fingers?))?(?: (?:{AT}|goodbye|hello|in the air))?"
    r"(?! (?:a|an|the|his|her|their|two) )",
    rf"waves {WHOSE}(?:hands?|fingers?)(?: {AT}| in the air)?|(?:waves|points) {AT}",
    rf"(?:(?:gesturing|signall?ing)(?: for)? (?:stop|hello|ok|yes|no|silence|quiet|help|attention)|saluting|gesturing)"
    rf"(?: {AT})?{BY_HAND}",
    rf"(?:giving the finger|flipping (?:off(?: the camera)?|the bird))(?: {AT})?",
)
# The project's own phrases come first: a shorter pattern would take only a part of one.
OWN = "|".join(re.escape(phrase) for phrase in sorted(PHRASES.values(), key=len, reverse=True))
GESTURE = re.compile(rf"(?<![\w'’])(?:{OWN}|{'|'.join(PATTERNS)})(?!\w)", re.IGNORECASE)


# What captioners call a gesture where they take it for an everyday act. It is scenery in the photos of other gestures.
BELONGING = r"(?:a|an|the|his|her|their|its|my)"
PHONE = (
    rf"(?:{BELONGING} )?(?:(?:cell|mobile|smart|cellular|old|black|white|red|corded|land ?line) ?){{0,4}}"
    r"(?:tele)?phones?"
)
ANYONE = r"(?:someone|us|you|everyone|people)"
TO = rf"(?:up )?(?:to|at|by|near|against|next to) {BELONGING}"
OTHER = r"(?! (?:case|booth|number|card|stick|charger|cord|app|screen|an?|the|his|her|their|its|my|for)\b)"
PERSON = r"(?:(?<=man )|(?<=men )|(?<=boy )|(?<=girl )|(?<=lady )|(?<=person )|(?<=people )|(?<=is )|(?<=are ))"
ORDINARY_WORDS = {
    "call": (
        r"(?:(?:talk|speak|chatt|listen|call)ing|pretending to (?:talk|speak|listen|call|be|be talking))"
        rf"(?: to (?:someone|somebody|a friend))? (?:on|over|into|with) {PHONE}{BY_HAND}"
        rf"|(?:making|taking|having|answering) {BELONGING} (?:tele)?(?:phone )?(?:call|conversation)(?! me| {SIGN})"
        rf"(?: on {PHONE})?{BY_HAND}"
        rf"|(?:making|taking) phone calls?(?! me| {SIGN})|answering {PHONE}"
        rf"|(?:calling|phoning)(?: someone| somebody)?{OTHER}{BY_HAND}"
        rf"|(?:holding|with|puts?|putting|has|having) {PHONE} {TO} (?:ear|head|face|mouth|cheek)s?"
        rf"|(?:holding|with|puts?|putting|has|having) {BELONGING} hands? {TO} ears?"
        rf"(?: (?:as if|like)(?: (?:he|she|they) (?:is|are|was|were))? (?:talking|speaking|calling)(?: on {PHONE})?)?"
        rf"|(?:holding|using) {PHONE}(?: in {BELONGING} (?:left |right )?hands?)?{OTHER}|{PERSON}on {PHONE}{OTHER}"
    ),
    "mute": (
        rf"(?:asking|calling) for (?:silence|quiet)|(?:telling|asking) {ANYONE} to (?:be|keep) quiet"
        r"|shush(?:ing|es)|whispering|saying shh+|keeping a secret"
    ),
    "stop": rf"(?:telling|asking) {ANYONE} to stop|saying (?:stop|no)",
    "palm": (
        rf"(?:showing|shows) the palms? of {BELONGING} hands?|(?:saying|says) (?:hello|hi|stop){BY_HAND}"
        rf"|greeting(?: someone)?{OTHER}"
    ),
    "like": r"hitch-?hiking",
    "holy": (
        r"praying|(?:with|has|holding|pressing) (?:his|her|their) (?:hands|palms)"
        rf" (?:clasped|folded|(?:pressed )?together)(?: together)?"
        rf"(?: {PRAYER}| in front of {BELONGING} (?:chest|face))?|{PRAYER}"
    ),
    "timeout": rf"making (?:a|the) (?:letter )?t(?: sign| shape)?(?: with {BELONGING} hands?)?",
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
