"""Text to token embeddings, offline: hashed words with learned embeddings and a small transformer.

Hashing words into buckets (Weinberger et al. 2009) needs no vocabulary file; two words of a caption share a bucket with
a probability of about one in `buckets`.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from worldsim.config import TextConfig
from worldsim.errors import TextError

_WORD = re.compile(r"[^\W_]+|[^\w\s]", re.UNICODE)
PAD, EMPTY = 0, 1  # bucket 1 stands for a text without words
_RESERVED = 2


def check_unicode(text: str) -> None:
    """Checks that a text can be written down.

    Raises:
        TextError: It holds half of a surrogate pair, which stands for no character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            expected="text of Unicode characters",
            got=f"a lone surrogate at {error.start} of {text[:60]!a}",
            remedy="Decode the text anew, with the encoding that it was written in.",
        ) from error


def words(text: str) -> list[str]:
    """Lower-case words and punctuation marks.

    >>> words("Two red balls, one box.")
    ['two', 'red', 'balls', ',', 'one', 'box', '.']
    """
    return _WORD.findall(text.lower())


@lru_cache(maxsize=65536)
def _bucket(word: str, buckets: int) -> int:
    digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
    return _RESERVED + int.from_bytes(digest, "little") % (buckets - _RESERVED)


class TextEncoder(nn.Module):
    """Words to (B, slots, width): a small transformer, then learned queries that summarise the words.

    Few slots keep attention cheap, whatever the length of the text. Padded places carry a learned embedding, so lengths
    need no mask.
    """

    def __init__(self, config: TextConfig, width: int, heads: int) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.buckets, width)
        self.places = nn.Parameter(0.02 * torch.randn(config.max_tokens, width))
        self.queries = nn.Parameter(torch.randn(config.slots, width) * width**-0.5)
        self.null = nn.Parameter(0.02 * torch.randn(config.slots, width))
        self.summarise = nn.MultiheadAttention(width, heads, batch_first=True)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)

    def tokenise(self, texts: Sequence[str]) -> Tensor:
        """Texts to (B, max_tokens) int64 bucket numbers.

        Raises:
            TextError: If a text is longer than the model was built for, or holds a lone surrogate.
        """
        ids = torch.zeros(len(texts), self.config.max_tokens, dtype=torch.int64)
        for row, text in enumerate(texts):
            check_unicode(text)
            found = words(text)
            if len(found) > self.config.max_tokens:
                raise TextError(
                    expected=f"at most {self.config.max_tokens} words and punctuation marks",
                    got=f"{len(found)} in {text[:60]!r}…",
                    remedy="Shorten the text.",
                )
            for place, word in enumerate(found):
                ids[row, place] = _bucket(word, self.config.buckets)
            if not found:
                ids[row, 0] = EMPTY
        return ids

    def forward(self, ids: Tensor, keep: Tensor | None = None) -> Tensor:
        """Embeds tokenised texts as (B, slots, width).

        Args:
            ids: (B, max_tokens) from `tokenise`.
            keep: (B,) boolean; where False the text is replaced by the learned absence of text.
        """
        x = self.embed(ids) + self.places
        for layer in self.layers:
            x = layer(x)
        queries = self.queries.to(x.dtype).expand(len(x), -1, -1)
        x = self.norm(queries + self.summarise(queries, x, x, need_weights=False)[0])
        return x if keep is None else torch.where(keep[:, None, None], x, self.null.to(x.dtype))
