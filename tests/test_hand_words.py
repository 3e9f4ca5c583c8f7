"""Which words are excited, and which of CLIP's tokens they are; the released code's choice, without NLTK."""

import sys

import pytest

from attentionhand import hand_words
from attentionhand.hand_words import released_positions, token_positions, treebank_words
from core.runs.errors import UserError

# What NLTK 3.9.1's word_tokenize makes of them.
WORDS = {
    "a man in a t-shirt holding a 3.5 kg bag": "a|man|in|a|t-shirt|holding|a|3.5|kg|bag",
    "The woman is holding an umbrella with her hand.": "The|woman|is|holding|an|umbrella|with|her|hand|.",
    "isn't it the U.S. flag… in a hand": "is|n't|it|the|U.S.|flag…|in|a|hand",
    "the U.S. Army's man; hands up!": "the|U.S.|Army|'s|man|;|hands|up|!",
    'a "hand" (left) -- holding: 3,000 cups': "a|``|hand|''|(|left|)|--|holding|:|3,000|cups",
    "they'll cannot gonna wave, can't they?": "they|'ll|can|not|gon|na|wave|,|ca|n't|they|?",
    "hand... and more": "hand|...|and|more",
    "the dogs' hands at 5:30": "the|dogs|'|hands|at|5:30",
    "He waves. She is holding a cup.": "He|waves|.|She|is|holding|a|cup|.",
}


def test_words_are_nltks():
    for text, words in WORDS.items():
        assert treebank_words(text) == words.split("|")


def test_released_positions():
    assert released_positions("a man holding a ring in his hand this morning") == [2, 7]
    assert released_positions("hand") == [75]
    assert released_positions("a man in a t-shirt, 3.5 m away, holding a hand") == [10, 12]
    assert released_positions("x" * 70 + " hand") == [1] and released_positions("x" * 73 + " hand") == [75]


def test_token_positions(attention_pipe):
    text = "a man holding a ring in his hand this morning"

    def words_at(text: str) -> str:
        ids = attention_pipe.tokenizer(text).input_ids
        found = [ids[position] for position in token_positions(attention_pipe.tokenizer, text)]
        return attention_pipe.tokenizer.decode(found).replace(" ", "")

    assert words_at(text) == "holdinghand"  # bytes are tokens here: all pieces of a word
    assert words_at("a red car") == "a"  # no hand word: the first
    assert hand_words.has_hand_word(text) and not hand_words.has_hand_word("a red car on the ceiling")
    assert all(1 <= position <= 75 for position in token_positions(attention_pipe.tokenizer, "hand " * 60))


def test_the_choice_does_not_depend_on_what_is_installed(monkeypatch):
    class Nltk:
        @staticmethod
        def pos_tag(words):
            return [(word, "VBG" if word == "ceiling" else "NN") for word in words]

    monkeypatch.setitem(sys.modules, "nltk", Nltk)
    hand_words.nltk_tagger.cache_clear()
    words = "holding the ceiling".split()
    assert hand_words.hand_words(words) == [0] and hand_words.hand_words(words, "nltk") == [2]
    monkeypatch.setitem(sys.modules, "nltk", None)
    hand_words.nltk_tagger.cache_clear()
    assert hand_words.hand_words(words) == [0]
    with pytest.raises(UserError, match="pip install nltk"):
        hand_words.hand_words(words, "nltk")


def test_texts_are_warned_of_once(attention_pipe, capsys):
    hand_words.warn_of_texts(attention_pipe.tokenizer, ["a car", "a hand", "a" * 200 + " hand", "a" * 200])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("texts without a hand word: 2") and "beyond CLIP's 77 tokens: 1" in said[1]
