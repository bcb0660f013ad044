"""The text encoder: words, hashing, absence."""

import hashlib

import pytest
import torch
from tiny_worlds import TEXT, randomised

from worldsim.config import TextConfig
from worldsim.errors import TextError
from worldsim.text import TextEncoder, words

KNOWN = [1447, 2630, 2670, 2677]  # of red ball , box among 4096 buckets


def _encoder(config=TEXT):
    return randomised(TextEncoder(config, 16, 2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two red balls, one box.", ["two", "red", "balls", ",", "one", "box", "."]),
        ("snake_case x2", ["snake", "case", "x2"]),
        ("Große Bälle!", ["große", "bälle", "!"]),
        ("  \n\t", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_words_hash_to_the_same_buckets_everywhere():
    """Weights are bound to the buckets: another hash would silently scramble a trained vocabulary."""

    def bucket(word):
        return 2 + int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little") % 62

    ids = _encoder().tokenise(["red Ball", ""])
    assert ids.tolist() == [[bucket("red"), bucket("ball"), 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]


def test_known_words_keep_their_numbers():
    ids = _encoder(TextConfig(buckets=4096, max_tokens=4)).tokenise(["red ball , box"])
    assert ids.tolist() == [KNOWN]


def test_a_text_too_long_is_refused():
    with pytest.raises(TextError, match="at most 6 words"):
        _encoder().tokenise(["one two three four five six seven"])
    assert _encoder().tokenise(["one two three four five six"]).shape == (1, 6)


def test_texts_give_slots_that_depend_on_order_and_words():
    encoder = _encoder()
    red, der, blue = encoder(encoder.tokenise(["red ball box", "box ball red", "blue ball box"]))
    assert red.shape == (3, 16)
    assert not torch.isclose(red, der).all()
    assert not torch.isclose(red, blue).all()


def test_absent_text_is_one_learned_memory_and_not_the_empty_text():
    encoder = _encoder()
    ids = encoder.tokenise(["red ball", "", "blue"])
    found = encoder(ids, torch.tensor([True, True, False]))
    assert torch.equal(found[2], encoder.null)
    assert not torch.isclose(found[1], encoder.null).all()
    torch.testing.assert_close(found[:2], encoder(ids)[:2])


def test_a_text_is_encoded_alike_in_any_batch():
    encoder = _encoder()
    alone = encoder(encoder.tokenise(["a red ball"]))
    beside = encoder(encoder.tokenise(["two", "a red ball", "x y z"]))
    torch.testing.assert_close(alone[0], beside[1], atol=1e-6, rtol=0)
