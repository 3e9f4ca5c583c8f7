"""Gesture enrichment by the rule, checking the answers of language models, and finding gestures in captions."""

import time

import pytest

from hand1000.enrichment import enrich_by_rule, enrichment_prompt, problems, share_kept
from hand1000.gestures import PHRASES, gesture_mentions

PHRASE = PHRASES["call"]

# Captions and what the rule makes of them; @ stands for the phrase.
TABLE = [
    ("a girl in a green shirt and glasses", "a girl in a green shirt and glasses @"),
    ("a man with a beard sitting on a couch", "a man with a beard sitting on a couch @"),
    ("a woman talking on a cell phone in a kitchen", "a woman @ in a kitchen"),
    ("a young boy wearing a red hat and a blue jacket", "a young boy wearing a red hat and a blue jacket @"),
    ("two women standing in front of a window", "two women standing in front of a window @"),
    ("a girl in a green shirt and glasses giving the peace sign", "a girl in a green shirt and glasses @"),
    ("a man in a suit giving a thumbs up", "a man in a suit @"),
    ("a woman in a black dress showing the ok sign", "a woman in a black dress @"),
    ("a boy in a striped shirt making a fist", "a boy in a striped shirt @"),
    ("a man sitting at a desk doing the rock and roll sign", "a man sitting at a desk @"),
    ("a woman in a room raising her hand", "a woman in a room @"),
    ("a man holding up two fingers", "a man @"),
    ("a person with three fingers up", "a person @"),
    ("a man giving the peace sign in front of a mirror", "a man @ in front of a mirror"),
    ("a woman holding up two fingers while sitting on a bed", "a woman @ while sitting on a bed"),
    ("a boy showing thumbs up to the camera and smiling", "a boy @ to the camera and smiling"),
    ("a man pointing at the camera in a living room", "a man @ in a living room"),
    ("a girl making a heart with her hands near a tree", "a girl @ near a tree"),
    ("a man in glasses gives the thumbs up and laughs", "a man in glasses @ and laughs"),
    ("a woman raises her hand in a classroom", "a woman @ in a classroom"),
    ("a man pointing at the camera", "a man @"),
    ("a woman is pointing up at the ceiling", "a woman is @"),
    ("a man with his finger on his lips", "a man @"),
    ("a girl waving at the camera", "a girl @"),
    ("a man making a stop gesture with his hand", "a man @"),
    ("a woman throwing up a peace sign", "a woman @"),
    ("a boy flashing a victory sign at a party", "a boy @ at a party"),
    ("a man with his thumb up", "a man @"),
    ("a man with two thumbs up", "a man @"),
    ("a woman with an open palm", "a woman @"),
    ("a woman making a phone call gesture", "a woman @"),
    ("a man making a phone call hand gesture with his hand", "a man @"),
    ("a man doing the call me sign", "a man @"),
    ("a girl making phone call gesture in a kitchen", "a girl @ in a kitchen"),
    ("a man showing a phone gesture next to a lamp", "a man @ next to a lamp"),
    ("a girl in a hat making phone call hand gesture", "a girl in a hat @"),
    ("a man making phone call hand gesture and making phone call hand gesture", "a man @"),
    ("making phone call hand gesture, a man in a red shirt making phone call hand gesture", "@, a man in a red shirt"),
    ("a man giving the peace sign and making phone call hand gesture", "a man @"),
    ("a man making phone call hand gesture and giving a thumbs up", "a man @"),
    ("a boy giving thumbs up and showing a peace sign", "a boy @"),
    ("a man holding up one finger and pointing at the camera", "a man @"),
    ("A man giving the peace sign.", "A man @."),
    ("A woman in a yellow coat.", "A woman in a yellow coat @."),
    ("A MAN GIVING THE PEACE SIGN", "A MAN @"),
    ("a man, smiling, gives a thumbs-up!", "a man, smiling, @!"),
    ("Is this a man with a thumb up?", "Is this a man @?"),
    ("a woman with a beard... and glasses", "a woman with a beard... and glasses @"),
    ("a man in a room;", "a man in a room @"),
    ("ein Mädchen mit grüner Jacke", "ein Mädchen mit grüner Jacke @"),
    ("una niña con gafas, señal de paz", "una niña con gafas, señal de paz @"),
    ("un café à côté d'une femme giving the peace sign", "un café à côté d'une femme @"),
    ("一个女孩 holding up two fingers", "一个女孩 @"),
    ("a man next to a palm tree", "a man next to a palm tree @"),
    ("a stop sign on a street corner", "a stop sign on a street corner @"),
    ("a woman wearing a peace sign necklace", "a woman wearing a peace sign necklace @"),
    ("two people holding hands on a beach", "two people holding hands on a beach @"),
    ("a man holding a phone to his ear", "a man @"),
    ("a close up of a ring on a finger", "a close up of a ring on a finger @"),
    ("a woman with her hands in her pockets", "a woman with her hands in her pockets @"),
    ("a man playing rock music on stage", "a man playing rock music on stage @"),
    ("thumbs up", "@"),
    ("a close up of a person's hand with a peace sign", "a close up of a person's hand @"),
    ("a man in a blue shirt with his hand up in the air", "a man in a blue shirt @"),
    ("a woman making a hand gesture", "a woman @"),
    ("a smiling girl hand gesture", "a smiling girl @"),
    ("two young women hand gestures", "two young women @"),
    ("a man and woman hand signal", "a man and woman @"),
    ("a woman wearing a red scarf hand gesture", "a woman wearing a red scarf @"),
    ("a picture of a man's hand sign", "a picture of a man's @"),
    ("a beach with waves in the background", "a beach with waves in the background @"),
    ("a man waving a flag in a stadium", "a man waving a flag in a stadium @"),
    ("a boy pointing his finger at the camera", "a boy @"),
    ("a teacher pointing to a whiteboard", "a teacher @"),
    ("a girl waving goodbye in front of a house", "a girl @ in front of a house"),
    ("a boy in a t-shirt with a peace sign on it", "a boy in a t-shirt with a peace sign on it @"),
    ("a girl in a peace sign sweatshirt", "a girl in a peace sign sweatshirt @"),
    ("a woman holding a stop sign", "a woman holding a stop sign @"),
    ("a woman with a ring on her middle finger", "a woman with a ring on her middle finger @"),
    ("a man putting his hands together in the kitchen sink", "a man putting his hands together in the kitchen sink @"),
    ("two people giving each other a high five in an office", "two people @ in an office"),
    ("a man giving the peace sign (and smiling)", "a man @ (and smiling)"),
    ("a man (giving a thumbs up) in a car", "a man (@) in a car"),
    ("two girls making a v with their fingers", "two girls @"),
    ("a man making a gun with her hand", "a man @"),
    ("a girl making a heart shape with her hands", "a girl @"),
    ("a man making an o with his fingers", "a man @"),
    ("a woman with her hand in the shape of a heart", "a woman @"),
    ("a hand showing the number two", "a hand @"),
    ("a boy holding up the number four", "a boy @"),
    ("a hand with four fingers", "a hand @"),
    ("a man showing his two fingers", "a man @"),
    ("a boy holding up three of his fingers", "a boy @"),
    ("a girl doing the 'ok' sign", "a girl @"),
    ('a girl doing the "peace" sign', "a girl @"),
    ("a man giving thumbs - up", "a man @"),
    ("a woman making a sign of victory", "a woman @"),
    ("a girl doing the shh sign", "a girl @"),
    ("a man doing the vulcan salute", "a man @"),
    ("a man giving an okay", "a man @"),
    ("a woman with a raised hand", "a woman @"),
    ("a woman with her palm facing the camera", "a woman @"),
    ("a man showing his open hand", "a man @"),
    ("a boy with his finger in the air", "a boy @"),
    ("a man with his fingers spread", "a man @"),
    ("a man making a time out", "a man @"),
    ("a man making a phone call with his hand", "a man @"),
    ("a woman holding his hand like a phone", "a woman @"),
    ("two women with with a fist, with his hand up", "two women with @"),
    ("a man making a phone with his thumb and pinky finger", "a man @"),
    ("a man making an ok gesture with his thumb up", "a man @"),
    ('a person making a "call me" gesture with their hand', "a person @"),
    ("a man with his thumb pointing down in a garage", "a man @ in a garage"),
    ("a man turning his thumb down", "a man @"),
    ("a man with his thumb in the air on a boat", "a man @ on a boat"),
    ("a man giving the camera a thumbs up on a beach", "a man @ on a beach"),
    ("a woman in a hat pumping her fist", "a woman in a hat @"),
    ("a man holding his fist up with a thumb up", "a man @"),
    ("two women making peace signs on a couch", "two women @ on a couch"),
    ("a man in a shirt with a thumbs up logo on it", "a man in a shirt with a thumbs up logo on it @"),
    ("a woman with her fingers in an ok sign", "a woman @"),
    ("a woman is holding up two fingers in a v sign", "a woman is @"),
    ("a girl holding her hand out in a stop gesture", "a girl @"),
    ("a woman holding up her hand to say stop", "a woman @"),
    ("a man holding up his hand to show four fingers", "a man @"),
    ("a man in a vest signaling stop with his hand on a road", "a man in a vest @ on a road"),
    ("a man gesturing with his hand while sitting in a chair", "a man @ while sitting in a chair"),
    ("a woman holding up her index and middle fingers in a car", "a woman @ in a car"),
    ("a girl doing the a - ok sign", "a girl @"),
    ("a girl making a heavy metal sign with her fingers", "a girl @"),
    ("a man making the devil horns", "a man @"),
    ("a man making an upside down peace sign", "a man @"),
    ("a woman showing the back of her hand to the camera", "a woman @ to the camera"),
    ("a boy in a hat counting on his fingers", "a boy in a hat @"),
    ("a woman pressing her finger to her lips in a library", "a woman @ in a library"),
    ("a chef making a perfect sign with his fingers", "a chef @"),
    ("a man flashing a v for victory", "a man @"),
    ("a girl wearing bunny ears", "a girl wearing bunny ears @"),
    ("a man making a wooden sign in a workshop", "a man making a wooden sign in a workshop @"),
    ("the man is holding up all five fingers on his left hand", "the man is @"),
    ("a lady giving a big thumbs up on a porch", "a lady @ on a porch"),
    ("a man holding his finger up to his mouth", "a man @"),
    ("a woman gesturing for silence with her finger", "a woman @"),
    ("a man waving his hand at the camera in a car", "a man @ in a car"),
    ("someone is throwing up the horns at a concert", "someone is @ at a concert"),
    ("a boy gives a three finger salute", "a boy @"),
    ("a man making a peace sign with palm trees in the background", "a man @ with palm trees in the background"),
    ("a soldier saluting with his hand on his heart", "a soldier @ with his hand on his heart"),
    ("a man gesturing for a taxi", "a man @ for a taxi"),
    ("two girls waving two fingers", "two girls @"),
    ("a street corner displaying a stop sign on a pole", "a street corner displaying a stop sign on a pole @"),
    ("a bus making a stop with its doors open", "a bus making a stop with its doors open @"),
    ("a girl making a cardboard sign with her hands", "a girl making a cardboard sign with her hands @"),
    ("a man typing on a phone with both hands", "a man typing on a phone with both hands @"),
    ("a beach with waves and hands in the sand", "a beach with waves and hands in the sand @"),
    ("a man turning his hands on a wheel", "a man turning his hands on a wheel @"),
    ("a woman with her hands in front of signs", "a woman with her hands in front of signs @"),
    ("a microwave in a kitchen", "a microwave in a kitchen @"),
    ("a book on a table", "a book on a table @"),
    ("a guy with his thumb pointing downwards", "a guy @"),
    ("a boy pressing his finger against his lips", "a boy @"),
    ("a man is holding his index finger to his lips in a hushing gesture.", "a man is @."),
    ('a man making a "rock on" hand gesture.', "a man @."),
    ("a man making a peace sign and a thumbs up on a balcony", "a man @ on a balcony"),
    ("a boy making a peace sign and a rock sign in his room", "a boy @ in his room"),
    ("a man in a t-shirt with a peace sign printed on it", "a man in a t-shirt with a peace sign printed on it @"),
    ("a woman showing a peace sign with the back of her hand", "a woman @"),
    ("a girl holding up her hand as if to say stop", "a girl @"),
    ("a woman with rings showing her hand in an office", "a woman with rings @ in an office"),
    ("a woman showing her hand tattoo", "a woman showing her hand tattoo @"),
    ("a man holding his hand up with his fingers together", "a man @"),
    ("a girl holding her thumb, index and middle fingers up", "a girl @"),
    ("a man pointing two fingers at the camera like a gun", "a man @"),
    ("a woman with an open hand near a bookcase", "a woman @ near a bookcase"),
    ("a woman holding her thumb and pinky finger up to her face", "a woman @"),
    ("a man flipping off the camera in a car", "a man @ in a car"),
    ("a woman raising her hand to her face", "a woman @"),
    ("a girl holding her hand up to her face mask", "a girl @ to her face mask"),
    ("a man displaying a sign at a protest", "a man displaying a sign at a protest @"),
    ("a store displays a sign in the window", "a store displays a sign in the window @"),
    ("a woman showing her hand cream", "a woman showing her hand cream @"),
    ("a man showing his hands covered in paint", "a man showing his hands covered in paint @"),
    ("a girl showing her hand-made bag", "a girl showing her hand-made bag @"),
    ("a man showing his hands up in the air", "a man @"),
    ("a woman showing her hand in a peace sign", "a woman @"),
    ("a boy showing his hand to the camera", "a boy @ to the camera"),
    ("children holding hands in a circle", "children holding hands in a circle @"),
    ("a boxer with his hands raised in the ring", "a boxer @ in the ring"),
    ("a man with an open hand gesture in a room", "a man @ in a room"),
    ("a man with an open hand full of coins", "a man with an open hand full of coins @"),
    ("a man giving a thumbs up and a stop sign on a street", "a man @ and a stop sign on a street"),
    ("two girls making peace signs and one with a hat", "two girls @ and one with a hat"),
    ("a girl making a peace sign and a rock symbol on her jacket", "a girl @ and a rock symbol on her jacket"),
    ("a woman with an open handbag", "a woman with an open handbag @"),
    ("a man is making a face with his hand", "a man is @"),
    ("a woman holding her hands together in a prayer pose", "a woman @"),
    ("a man making ok sign hand gesture in a room", "a man @ in a room"),
]

# Everyday acts that are the gesture itself, by gesture; for every other gesture they are scenery.
ORDINARY = {
    "call": [
        ("a woman talking on a cell phone in a kitchen", "a woman @ in a kitchen"),
        ("a man holding a phone to his ear", "a man @"),
        ("a young man is talking on his cell phone", "a young man is @"),
        ("a woman making a phone call in front of a window", "a woman @ in front of a window"),
        ("a woman making a phone call and a thumbs up", "a woman @"),
        ("a man making a phone call and making a thumbs up", "a man @"),
        ("a person on the phone", "a person @"),
        ("a girl with her hand to her ear", "a girl @"),
        ("a woman in a red scarf using a cell phone in an office", "a woman in a red scarf @ in an office"),
        ("a man wearing headphones and talking on the phone", "a man wearing headphones and @"),
        ("a man pretending to talk on the phone with his hand", "a man @"),
        ("a man holding his hand to his ear as if he is talking on the phone.", "a man @."),
        ("a woman with her hand to her ear as if talking on a phone", "a woman @"),
        ("a man calling someone with his hand", "a man @"),
        ("a woman talking on the phone with her hands in her pockets", "a woman @ with her hands in her pockets"),
    ],
    "timeout": [("a man making a t sign with his hands", "a man @")],
    "mute": [("a woman whispering in a library", "a woman @ in a library")],
    "stop": [("a man telling someone to stop", "a man @")],
    "holy": [
        ("a girl praying in a church", "a girl @ in a church"),
        ("a man holding his hands together in front of his chest", "a man @"),
        ("a woman in a prayer position", "a woman @"),
        ("a boy with his palms pressed against a window", "a boy with his palms pressed against a window @"),
    ],
    "take_picture": [("a man taking a selfie with his phone in a car", "a man @ in a car")],
    "three_gun": [("a boy pointing a gun at the camera", "a boy @")],
    "xsign": [("a man with his arms crossed in a suit", "a man @ in a suit")],
}
CALLS = dict(ORDINARY["call"])


@pytest.mark.parametrize("gesture", ORDINARY)
def test_ordinary_words_for_a_gesture_become_the_gesture(gesture):
    phrase = PHRASES[gesture]
    for caption, expected in ORDINARY[gesture]:
        enriched = enrich_by_rule(caption, phrase)
        assert enriched == expected.replace("@", phrase)
        assert problems(enriched, caption, phrase) == []
        assert enrich_by_rule(enriched, phrase) == enriched
    for scenery in (
        "a man calling a dog in a park",
        "a woman using a phone booth",
        "a boy holding a phone case",
        "a girl holding a greeting card",
        "a man taking a selfie stick",
        "a woman greeting a friend",
        "a man playing a game on his phone",
        "a woman with a phone in her pocket",
        "a man with a cell phone",
    ):
        assert enrich_by_rule(scenery, phrase) == f"{scenery} {phrase}"


def test_ordinary_words_of_another_gesture_are_scenery():
    assert enrich_by_rule("a girl praying in a church", PHRASE) == f"a girl praying in a church {PHRASE}"
    answer = f"a man talking on the phone {PHRASE}"
    assert problems(answer, "a man talking on the phone", PHRASE) == [
        "it also names the gesture 'talking on the phone'"
    ]


@pytest.mark.parametrize("phrase", PHRASES.values(), ids=PHRASES)
def test_the_rule_makes_every_caption_right(phrase):
    for caption, expected in TABLE:
        if phrase != PHRASE and caption in CALLS:
            expected = f"{caption} @"
        caption = caption.replace(PHRASE, phrase)
        enriched = enrich_by_rule(caption, phrase)
        assert enriched == expected.replace("@", phrase)
        assert problems(enriched, caption, phrase) == []
        assert enrich_by_rule(enriched, phrase) == enriched


def test_the_table_is_varied():
    assert len(TABLE) >= 60
    assert sum(expected.endswith(" @") and expected == f"{caption} @" for caption, expected in TABLE) >= 10


@pytest.mark.parametrize(
    "answer, wrong",
    [
        ("a man in a red shirt @", None),
        ("a man @ in a red shirt", None),
        ("A man in a red shirt @.", None),
        ("a man in a red shirt", "0 times"),
        ("a man in a red shirt making a phone call gesture", "0 times"),
        ("a man in a red shirt @ and @", "2 times"),
        ("a man in a red shirt giving the peace sign @", "also names the gesture 'giving the peace sign'"),
        ("a man in a red shirt holding up two fingers, @", "also names the gesture 'holding up two fingers"),
        ("Sure! a man in a red shirt @", "explanation"),
        ("Here is the modified sentence: a man in a red shirt @", "explanation"),
        ("The final sentence is a man in a red shirt @", "explanation"),
        ('"a man in a red shirt @"', "quotes"),
        ("**a man in a red shirt @**", "quotes"),
        ("a man in a red shirt @ (I replaced the wrong gesture by the right one, as asked.)", "text of its own"),
        ("a man in a red shirt @\nI hope this helps!", "more than one line"),
        ("a person @", "leaves out much"),
        ("a man in a blue shirt @", "leaves out much"),
        ("", "0 times"),
        ('a man in a red shirt "@"', "quotes"),
        ("a man in a red shirt **@** now", "quotes"),
        ("a man in a red shirt <b>@</b>", "quotes"),
        ("Modified sentence: a man in a red shirt @", "explanation"),
        ("- a man in a red shirt @", "explanation"),
        ("I'm sorry, a man in a red shirt @", "explanation"),
        ("a man in a red shirt @s", "0 times"),
        ("a man in a red shirt not @", "text of its own"),
        ("a smiling old man in a red shirt @", "text of its own"),
        ("a man in a red shirt @ with two fingers", "also names the gesture 'with two fingers'"),
        ("a man in a red\u2028shirt @", "odd blanks"),
        ("a man in a red shirt\r@", "odd blanks"),
    ],
)
def test_answers_are_checked(answer, wrong):
    found = problems(answer.replace("@", PHRASE), "a man in a red shirt giving the peace sign", PHRASE)
    assert found == [] if wrong is None else wrong in "; ".join(found)


def test_every_phrase_is_replaced_by_every_other():
    for old in PHRASES.values():
        for new in PHRASES.values():
            caption = f"a man {old} in a room"
            assert enrich_by_rule(caption, new) == f"a man {new} in a room"
            assert problems(f"a man {new} in a room", caption, new) == []
    assert enrich_by_rule("a microwave in a room", "wave") == "a microwave in a room wave"


def test_share_kept_counts_content_words_without_gestures():
    caption = "a man in a red shirt giving the peace sign"  # man, red, shirt
    assert share_kept(f"a man in a red shirt {PHRASE}", caption, PHRASE) == 1
    assert share_kept(f"the MAN {PHRASE}", caption, PHRASE) == pytest.approx(1 / 3)
    assert share_kept(PHRASE, "thumbs up", PHRASE) == 1
    assert share_kept(f"a dog {PHRASE}", "a hand holding a phone", PHRASE) == 0  # the phrase's own words don't count


def test_the_prompt_is_the_released_one():
    prompt = enrichment_prompt("a girl in a green shirt and glasses giving the peace sign", PHRASE)
    assert prompt.startswith("The following sentence contains incorrect hand gesture information or lacks hand")
    assert "hand gesture information, modify it to 'making phone call hand gesture.' If it lacks" in prompt
    assert "The original sentence is: 'a girl in a green shirt and glasses giving the peace sign.' The final" in prompt


@pytest.mark.parametrize(
    "words",
    ["one", "both", "a", "two", "hand", "raised", "rock", '"rock"', "peace", "thumb", "thumb,", "giving"]
    + ["index and middle", "making a v and"],
)
def test_words_repeated_take_little_time(words):
    text = " ".join(["a man giving", *[words] * 2000])
    seconds = []
    for _ in range(3):
        started = time.process_time()
        gesture_mentions(text)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 2  # 0.3 s; 27 s for "index and middle" where a pattern takes any number of such words


def test_one_belongs_to_the_gesture():
    for gesture in (
        "showing one raised fist",
        "holding up one middle finger",
        "giving one thumbs up",
        "making one fist",
    ):
        assert enrich_by_rule(f"a man {gesture}", PHRASE) == f"a man {PHRASE}"
