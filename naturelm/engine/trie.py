"""Closed label lists: the exact best labels of a list, by scoring the trie of their tokens.

What is scored. A label's log-probability is the sum over its tokens and the end of the answer after them; the end is
any of the end tokens, so their probabilities are added. With the end counted no answer is the beginning of another
("Owl", "Owl hoot"): labels are exclusive, and a label's probability on the list is its own over the list's sum.

How. Labels share beginnings, so their tokens form a trie, and each of its nodes is read once, by attention that sees
the prompt and the node's ancestors only. A node's probability is what all labels under it add up to at most. So nodes
are read best first, and reading ends when (a) no unread node is likelier than the k-th label found, and (b) all
unread nodes together hold less than `TOLERANCE` of what the labels found hold. By (a) the top k are exactly those of
the whole list, by (b) the sum that normalises them is right to a relative error of `TOLERANCE`. In the worst case
the whole trie is read.

Axes: W windows · M nodes of one wave · S slots · V vocabulary · N nodes of the trie
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from naturelm.engine.decoder import Decoder
from naturelm.errors import NaturelmError

TOLERANCE = 1e-6
NO_LABEL = "None"

# A trie of at most so many nodes is read at one go: on a fast device that costs less than several short waves.
_WHOLE_NODES = 96
# Most nodes of one window read in one wave, and how far (in log-probability) below the best of them they may lie.
_WAVE_NODES = 16
_WAVE_SPAN = 7.0
# Logits held at once, in numbers: a large vocabulary times many nodes would not fit.
LOGITS_AT_ONCE = 1 << 26
_COMPACT_BELOW = 0.75


class LabelTrie:
    """The token trie of a list of labels.

    Parameters
    ----------
    labels : sequence of str
        In words; `NO_LABEL` is added where no label is that word, in any case.
    tokenize : callable
        Token ids of a label's text.

    Attributes
    ----------
    labels : tuple of str
        The list that is scored.
    token, parent, depth : ndarray
        Of each node: token id, parent node (-1 under the root) and number of tokens down to it. Parents come first.
    path : ndarray
        ``[N, deepest]``: each node's ancestors and itself from the top down, -1 where there are no more.
    label_node : ndarray
        The node each label ends at.

    Raises
    ------
    NaturelmError
        A label has no tokens, or two labels have the same.
    """

    def __init__(self, labels: Sequence[str], tokenize: Callable[[str], Sequence[int]]) -> None:
        has_none = any(label.strip().casefold() == NO_LABEL.casefold() for label in labels)
        self.labels = tuple(labels) if has_none else (*labels, NO_LABEL)
        children: dict[tuple[int, int], int] = {}
        ends: dict[int, str] = {}
        self.label_tokens: list[tuple[int, ...]] = []
        for label in self.labels:
            tokens = tuple(tokenize(label.strip()))
            node = -1
            for token in tokens:
                node = children.setdefault((node, token), len(children))
            if node < 0:
                raise NaturelmError(f"label {label!r} has no tokens; give labels with text")
            if node in ends:
                raise NaturelmError(f"labels {ends[node]!r} and {label!r} are the same text; name each once")
            ends[node] = label
            self.label_tokens.append(tokens)
        self.size = len(children)
        keys = list(children)
        self.parent = np.array([parent for parent, _ in keys])
        self.token = np.array([token for _, token in keys])
        self.depth = np.ones(self.size, dtype=np.int64)
        for node, parent in enumerate(self.parent):
            if parent >= 0:
                self.depth[node] = self.depth[parent] + 1
        self.path = np.full((self.size, int(self.depth.max())), -1)
        for node, parent in enumerate(self.parent):
            if parent >= 0:
                self.path[node] = self.path[parent]
            self.path[node, self.depth[node] - 1] = node
        self.label_node = np.array(list(ends))
        self.label_at_node = np.full(self.size, -1)
        self.label_at_node[self.label_node] = np.arange(len(self.labels))
        # Children of node n (the root's under index 0, node n's under n + 1), one after the other.
        self.children = np.argsort(self.parent, kind="stable")
        self.first_child = np.searchsorted(self.parent[self.children], np.arange(-1, self.size + 1))

    @property
    def nodes_at_once(self) -> int:
        """Most nodes of one window that are read at once."""
        return self.size if self.size <= _WHOLE_NODES else _WAVE_NODES


@dataclass(frozen=True)
class LabelScores:
    """The best labels of one window.

    Attributes
    ----------
    best : tuple of (int, float)
        Index into the trie's labels and probability on the list, best first.
    token_log_probs : tuple of float
        Log-probability of each token of the best label.
    end_log_prob : float
        Log-probability of the answer's end after it.
    """

    best: tuple[tuple[int, float], ...]
    token_log_probs: tuple[float, ...]
    end_log_prob: float


def score_labels(
    decoder: Decoder, trie: LabelTrie, kv: Tensor, hidden_WD: Tensor, end_token_ids: Sequence[int], top_k: int
) -> list[LabelScores]:
    """Score a list of labels after the prompts of several windows.

    Parameters
    ----------
    decoder : Decoder
        The language model.
    trie : LabelTrie
        The labels.
    kv : Tensor
        Keys and values of the prompts, ``[layers, 2, W, kv_heads, prompt tokens, head_dim]``, without gaps.
    hidden_WD : Tensor
        Hidden state after each prompt's last token.
    end_token_ids : sequence of int
        Tokens that end an answer.
    top_k : int
        How many labels to return.
    """
    search = _TrieSearch(decoder, trie, kv, end_token_ids, top_k)
    search.read_root(hidden_WD)
    if trie.size <= _WHOLE_NODES:
        search.read_nodes(np.broadcast_to(np.arange(trie.size), (hidden_WD.shape[0], trie.size)))
    else:
        while (wave_WM := search.next_wave()) is not None:
            search.read_nodes(wave_WM)
    return search.results()


class _TrieSearch:
    def __init__(
        self, decoder: Decoder, trie: LabelTrie, kv: Tensor, end_token_ids: Sequence[int], top_k: int
    ) -> None:
        self.decoder, self.trie = decoder, trie
        self.prompt_slots = kv.shape[-2]
        self.kv = kv
        self.used = 0
        self.ends = np.array(end_token_ids)
        self.top_k = min(top_k, len(trie.labels))
        windows = kv.shape[2]
        self.live_W = np.arange(windows)  # which window each row of the buffer is
        self.step_log_prob = np.full((windows, trie.size), -np.inf)  # of a node's token after its parent
        self.node_log_prob = np.full((windows, trie.size), -np.inf)  # of the whole path from the root
        self.end_log_prob = np.full((windows, len(trie.labels)), -np.inf)
        self.unread = np.zeros((windows, trie.size), dtype=bool)
        self.slot = np.zeros((windows, trie.size), dtype=np.int64)

    # -- reading -----------------------------------------------------------------------------------------------

    def read_root(self, hidden_WD: Tensor) -> None:
        windows = np.arange(hidden_WD.shape[0])
        self._score_after(hidden_WD, windows, np.full(windows.shape, -1))

    def read_nodes(self, wave_WM: np.ndarray) -> None:
        """Read nodes (-1: none) of each live window; their parents have been read, or are in the same wave."""
        device = self.decoder.device
        count = wave_WM.shape[1]
        start = self.prompt_slots + self.used
        visible = start + count
        self._make_room(visible)
        nodes_WM = np.maximum(wave_WM, 0)
        rows, columns = np.nonzero(wave_WM >= 0)
        windows, nodes = self.live_W[rows], wave_WM[rows, columns]
        self.slot[windows, nodes] = start + columns

        # A token sees the prompt, its ancestors and itself; slot 0, always seen, stands in where there are no more.
        path_WMP = self.trie.path[nodes_WM]
        seen_WMP = np.where(path_WMP >= 0, self.slot[self.live_W[:, None, None], np.maximum(path_WMP, 0)], 0)
        mask_WMS = torch.zeros(*wave_WM.shape, visible, dtype=torch.bool, device=device)
        mask_WMS[:, :, : self.prompt_slots] = True
        mask_WMS.scatter_(2, torch.from_numpy(seen_WMP).to(device), True)
        hidden_WMD = self.decoder.forward(
            self.decoder.embed(torch.from_numpy(self.trie.token[nodes_WM]).to(device)),
            torch.from_numpy(self.prompt_slots - 1 + self.trie.depth[nodes_WM]).to(device),
            self.kv,
            slice(start, visible),
            visible,
            mask_WMS,
        )
        self.used += count
        self.unread[windows, nodes] = False
        self._score_after(hidden_WMD[torch.from_numpy(rows), torch.from_numpy(columns)], windows, nodes)

    def _score_after(self, hidden_ND: Tensor, windows: np.ndarray, nodes: np.ndarray) -> None:
        """Score what may follow the nodes (-1: the root) that have these hidden states: children, and the end."""
        device = self.decoder.device
        ends = torch.from_numpy(self.ends).to(device)
        all_children, all_owners = self._children_of(nodes)
        step = max(1, LOGITS_AT_ONCE // self.decoder.lm_head.shape[0])
        for begin in range(0, len(nodes), step):
            part = slice(begin, begin + step)
            logits_NV = self.decoder.logits(hidden_ND[part]).float()
            log_sum_N = logits_NV.logsumexp(-1)
            end_N = (logits_NV[:, ends].logsumexp(-1) - log_sum_N).cpu().numpy()
            ending = np.flatnonzero((nodes[part] >= 0) & (self.trie.label_at_node[nodes[part]] >= 0))
            self.end_log_prob[windows[part][ending], self.trie.label_at_node[nodes[part][ending]]] = end_N[
                ending
            ]

            among = slice(*np.searchsorted(all_owners, [begin, begin + step]))
            children, owners = all_children[among], torch.from_numpy(all_owners[among] - begin).to(device)
            tokens = torch.from_numpy(self.trie.token[children]).to(device)
            child_log_prob = logits_NV[owners, tokens] - log_sum_N[owners]
            self.step_log_prob[windows[all_owners[among]], children] = child_log_prob.cpu().numpy()
        owner_windows = windows[all_owners]
        self.unread[owner_windows, all_children] = True
        path = self.trie.path[all_children]
        steps = self.step_log_prob[owner_windows[:, None], np.maximum(path, 0)]
        self.node_log_prob[owner_windows, all_children] = np.where(path >= 0, steps, 0.0).sum(axis=1)

    def _children_of(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All children of the nodes, and for each the index of its parent among `nodes`."""
        first, beyond = self.trie.first_child[nodes + 1], self.trie.first_child[nodes + 2]
        counts = beyond - first
        owners = np.repeat(np.arange(len(nodes)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.trie.children[first[owners] + within], owners

    # -- choosing ----------------------------------------------------------------------------------------------

    def next_wave(self) -> np.ndarray | None:
        """The nodes to read next, ``[live windows, M]`` with -1 for none; None when every window is done."""
        unread_WN = np.where(self.unread[self.live_W], self.node_log_prob[self.live_W], -np.inf)
        labels_WL = self._label_log_prob()[self.live_W]
        likeliest_W = unread_WN.max(axis=1)
        kth_W = np.partition(labels_WL, -self.top_k, axis=1)[:, -self.top_k]
        settled_W = likeliest_W <= kth_W
        negligible_W = _log_sum(unread_WN) <= _log_sum(labels_WL) + np.log(TOLERANCE)
        going = np.flatnonzero(~(settled_W & negligible_W))
        if going.size == 0:
            return None
        if going.size <= _COMPACT_BELOW * self.live_W.size:
            self.kv = self.kv[:, :, torch.from_numpy(going).to(self.decoder.device)]
            self.live_W, unread_WN, likeliest_W = self.live_W[going], unread_WN[going], likeliest_W[going]
            going = np.arange(going.size)
        count = min(_WAVE_NODES, self.trie.size)
        wave_WM = np.argpartition(-unread_WN, count - 1, axis=1)[:, :count]
        log_prob_WM = np.take_along_axis(unread_WN, wave_WM, axis=1)
        worth_WM = log_prob_WM >= np.maximum(likeliest_W[:, None] - _WAVE_SPAN, -np.finfo(np.float64).max)
        worth_WM &= np.isin(np.arange(self.live_W.size), going)[:, None]
        order = np.argsort(~worth_WM, axis=1, kind="stable")[:, : worth_WM.sum(axis=1).max()]
        return np.take_along_axis(np.where(worth_WM, wave_WM, -1), order, axis=1)

    def results(self) -> list[LabelScores]:
        labels_WL = self._label_log_prob()
        log_sum_W = _log_sum(labels_WL)
        results = []
        for window, labels_L in enumerate(labels_WL):
            best = np.argsort(-labels_L, kind="stable")[: self.top_k]
            probabilities = np.exp(labels_L[best] - log_sum_W[window])
            path = self.trie.path[self.trie.label_node[best[0]]]
            results.append(
                LabelScores(
                    best=tuple(zip(best.tolist(), probabilities.tolist(), strict=True)),
                    token_log_probs=tuple(self.step_log_prob[window, path[path >= 0]].tolist()),
                    end_log_prob=float(self.end_log_prob[window, best[0]]),
                )
            )
        return results

    def _label_log_prob(self) -> np.ndarray:
        """``[windows, labels]``: of a label and the end after it, -inf where not read yet."""
        return self.node_log_prob[:, self.trie.label_node] + self.end_log_prob

    def _make_room(self, slots: int) -> None:
        if slots <= self.kv.shape[-2]:
            return
        kv = self.decoder.new_kv(self.kv.shape[2], max(slots, 2 * self.used + self.prompt_slots))
        kv[..., : self.kv.shape[-2], :] = self.kv
        self.kv = kv


def _log_sum(log_probs_WN: np.ndarray) -> np.ndarray:
    largest_W1 = np.maximum(log_probs_WN.max(axis=1, keepdims=True), -np.finfo(np.float64).max)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(log_probs_WN - largest_W1).sum(axis=1)) + largest_W1[:, 0]
