"""The arithmetic of BEANS-Zero's metrics, on a whole set and on many resamples of it at once.

The figures of a whole set are those of the official tool, to the last digits. Resamples are given as weights, how often
each example was drawn: ``weights_BN``, float32 ``[resamples, examples]``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Figures = dict[str, float]
Resampled = dict[str, NDArray[np.float64]]


def classification_figures(truth_N: NDArray[np.int64], answer_N: NDArray[np.int64]) -> Figures:
    """Accuracy, and precision, recall and F1 averaged over labels by how often each is right.

    Parameters
    ----------
    truth_N, answer_N
        Numbers of labels; an answer that is not a label has a number that no true label has.
    """
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    precision, recall, f1, _ = precision_recall_fscore_support(
        truth_N, answer_N, average="weighted", zero_division=0
    )
    return {
        "Accuracy": float(accuracy_score(truth_N, answer_N)),
        "Precision": float(precision),
        "Recall": float(recall),
        "F1 Score": float(f1),
    }


def resampled_classification(
    truth_N: NDArray[np.int64], answer_N: NDArray[np.int64], weights_BN: NDArray[np.float32], labels: int
) -> Resampled:
    """`classification_figures` of resamples; `labels` is how many numbers of labels there are."""
    correct_N = truth_N == answer_N
    support_BL = _count(truth_N, weights_BN, labels)
    answered_BL = _count(
        np.where((answer_N >= 0) & (answer_N < labels), answer_N, labels), weights_BN, labels
    )
    hits_BL = _count(np.where(correct_N, truth_N, labels), weights_BN, labels)
    precision_BL, recall_BL, f1_BL = _rates(hits_BL, answered_BL, support_BL)
    total_B = support_BL.sum(axis=1)
    return {
        "Accuracy": hits_BL.sum(axis=1) / total_B,
        "Precision": (precision_BL * support_BL).sum(axis=1) / total_B,
        "Recall": (recall_BL * support_BL).sum(axis=1) / total_B,
        "F1 Score": (f1_BL * support_BL).sum(axis=1) / total_B,
    }


def detection_figures(truth_NL: NDArray[np.bool_], answer_NL: NDArray[np.bool_]) -> Figures:
    """Mean average precision, and precision, recall and F1 averaged over labels alike."""
    from sklearn.metrics import precision_recall_fscore_support

    # Two columns at least: scikit-learn takes a single one for a binary task, and averages over its two classes.
    kinds = list(range(truth_NL.shape[1]))
    pad = np.zeros((len(truth_NL), 1), dtype=bool)
    precision, recall, f1, _ = precision_recall_fscore_support(
        np.hstack([truth_NL, pad]),
        np.hstack([answer_NL, pad]),
        labels=kinds,
        average="macro",
        zero_division=0,
    )
    return {
        "mAP": _mean_average_precision(truth_NL, answer_NL),
        "F1": float(f1),
        "Recall": float(recall),
        "Precision": float(precision),
    }


def _mean_average_precision(truth_NL: NDArray[np.bool_], answer_NL: NDArray[np.bool_]) -> float:
    """In float32 and in torch, as the official tool computes it: other sums differ from the eighth digit on."""
    import torch

    ranks_N = torch.arange(1, len(truth_NL) + 1).float()
    average_L = torch.zeros(truth_NL.shape[1])
    for label in range(truth_NL.shape[1]):
        order_N = torch.from_numpy(_ranking(answer_NL[:, label]))
        truth_N = torch.from_numpy(truth_NL[:, label])[order_N]
        precision_N = truth_N.float().cumsum(0) / ranks_N
        average_L[label] = precision_N[truth_N].sum() / max(int(truth_N.sum()), 1)
    return float(average_L.mean())


def resampled_detection(
    truth_NL: NDArray[np.bool_], answer_NL: NDArray[np.bool_], weights_BN: NDArray[np.float32]
) -> Resampled:
    """`detection_figures` of resamples; an example drawn twice is ranked twice in succession."""
    hits_BL = weights_BN @ (truth_NL & answer_NL).astype(np.float32)
    answered_BL = weights_BN @ answer_NL.astype(np.float32)
    support_BL = weights_BN @ truth_NL.astype(np.float32)
    precision_BL, recall_BL, f1_BL = _rates(
        *(part.astype(float) for part in (hits_BL, answered_BL, support_BL))
    )
    average_BL = np.stack(
        [
            resampled_average_precision(truth_NL[:, label], answer_NL[:, label], weights_BN)
            for label in range(truth_NL.shape[1])
        ],
        axis=1,
    )
    return {
        "mAP": average_BL.mean(axis=1),
        "F1": f1_BL.mean(axis=1),
        "Recall": recall_BL.mean(axis=1),
        "Precision": precision_BL.mean(axis=1),
    }


def resampled_average_precision(
    truth_N: NDArray[np.bool_], answer_N: NDArray[np.bool_], weights_BN: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Average precision of one label in each resample; 0 where the label is not in it."""
    order_N = _ranking(answer_N)
    truth_N, weights_BN = truth_N[order_N], weights_BN[:, order_N]
    # Only examples with the label add to the sum: rank and hits before each, then every time it was drawn.
    at_T = np.flatnonzero(truth_N)
    ranks_BT = weights_BN.cumsum(axis=1)[:, at_T]
    drawn_BT = weights_BN[:, at_T]
    hits_BT = drawn_BT.cumsum(axis=1)
    total_BT = np.zeros_like(ranks_BT)
    for time in range(int(drawn_BT.max(initial=0))):
        back_BT = drawn_BT - 1 - time
        total_BT += np.where(back_BT >= 0, (hits_BT - back_BT) / np.maximum(ranks_BT - back_BT, 1), 0)
    return total_BT.sum(axis=1, dtype=np.float64) / np.maximum(drawn_BT.sum(axis=1), 1)


def resampled_mean(scores_N: NDArray[np.float64], weights_BN: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean of scores in each resample."""
    means_B: NDArray[np.float64] = weights_BN @ scores_N / weights_BN.sum(axis=1)
    return means_B


def _ranking(answer_N: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Examples whose answer has the label, then the others; equal ones in the order of torch's sort, as officially."""
    import torch

    order_N = torch.sort(torch.from_numpy(answer_N).float(), 0, True).indices
    return np.asarray(order_N.numpy())


def _count(numbers_N: NDArray[np.int64], weights_BN: NDArray[np.float32], labels: int) -> NDArray[np.float64]:
    """Summed weights by number, those from `labels` on left out: ``[resamples, labels]``."""
    resamples = len(weights_BN)
    flat = numbers_N + (labels + 1) * np.arange(resamples)[:, None]
    counts = np.bincount(flat.ravel(), weights_BN.ravel(), minlength=resamples * (labels + 1))
    return counts.reshape(resamples, labels + 1)[:, :labels].astype(np.float64)


def _rates(
    hits: NDArray[np.float64], answered: NDArray[np.float64], support: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 by label; 0 where the divisor is 0."""
    precision = hits / np.maximum(answered, 1)
    recall = hits / np.maximum(support, 1)
    return precision, recall, 2 * hits / np.maximum(answered + support, 1)
