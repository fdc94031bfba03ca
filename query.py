"""Which pixels to ask next.

As a script: `python query.py --checkpoint FILE --dir_dataset DIR` writes the next query of a data
set with a trained network.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from args import asking_kwargs, cache_kwargs, check_asking, parse_query_arguments
from datasets.caches import Cache
from datasets.labellers import empty_masks, void_masks
from datasets.points import concatenate, read_labels
from datasets.queries import Query, read_query, write_query
from datasets.split import LoadedSplit
from utils.acquisition import (
    ACQUISITIONS,
    MC_N_STEPS,
    VOTE_TYPE,
    VOTE_TYPES,
    Committee,
    acquisition,
    entropy,
    score,
)
from utils.device import Download, select_device, upload
from utils.distributed import (
    gathered,
    is_main,
    local_world_size,
    main_first,
    process_group,
    rank,
    warnings_to_main,
    world_size,
)
from utils.downloads import is_remote
from utils.errors import InputError, run_program
from utils.inference import Predictor
from utils.lazy import Lazy
from utils.losses import class_counts
from utils.models import load_model
from utils.progress import Progress, track
from utils.seeds import random_generator, seed_of
from utils.selection import (
    ALLOCATIONS,
    favouring_rare,
    most_of_an_image,
    quantiles,
    rarity,
    select_pixels,
)

__all__ = ["ACQUISITIONS", "acquisition", "earlier_queries", "excluding", "initial_query", "main",
           "next_query", "select_pixels"]

_MOST_THREADS = 8

def initial_query(split: LoadedSplit, *, n: int, excluded: Sequence[np.ndarray],
                  seed: int) -> Query:
    """Round 0: `n` pixels an image, uniformly among those not `excluded` (bool `(H, W)` each). Of
    several processes each draws for its share of the images; all get the whole query."""
    ours = range(rank(), len(split), world_size())

    def choose(index: int) -> np.ndarray:
        name = split.names[index]
        return select_pixels(np.where(excluded[index], -np.inf, 0.0), n=n, top_n_percent=1.0,
                             rng=random_generator(seed, "query", 0, name), name=name)

    # Label maps that are not in memory are read on the way.
    with warnings_to_main(), ThreadPoolExecutor(_n_threads()) as pool:
        chosen = track(pool.map(choose, ours), len(ours), description="query 0", unit="image")
        found = gathered(dict(zip(ours, chosen, strict=True)))
    pixels = [found[index] for index in range(len(split))]
    return Query(names=split.names, sizes=split.sizes, pixels=pixels, strategy="random", seed=seed)


def next_query(network: nn.Module, split: LoadedSplit, *, predictor: Predictor,
               strategy: str, n: int, top_n_percent: float, reverse_order: bool,
               excluded: Sequence[np.ndarray], seed: int, round_index: int,
               use_mc_dropout: bool = False, mc_n_steps: int = MC_N_STEPS,
               mc_layers: str = "all", vote_type: str = VOTE_TYPE, temperature: float = 1.0,
               ask_balance: float = 0.0, min_distance: float = 0.0, allocate: str = "image",
               class_counts: np.ndarray | None = None,
               asked: Sequence[np.ndarray] | None = None) -> tuple[Query, np.ndarray]:
    """Choose `n` pixels an image by the network's uncertainty, never an `excluded` one (bool
    `(H, W)` for each image). Also returns the entropy in nats at the chosen pixels, `(K,)`. Of
    several processes each looks at the predictor's share of the images; all get the whole query.

    Raises ValueError for `ask_balance` without `class_counts`.

    use_mc_dropout: ask a committee, `mc_n_steps` passes with dropout in `mc_layers` of MC_LAYERS,
        whose distribution is the `vote_type` of VOTE_TYPES. Predictions, probabilities and
        entropies are then those of the passes' mean, whatever the vote type.
    temperature: all logits are divided by it.
    ask_balance: the power by which a pixel counts less the more labels, `class_counts` `(C,)`, the
        class predicted there has already; see utils.selection.
    min_distance: of pixels, also from those of `asked`, (y, x) `(m, 2)` for each image.
    allocate: of ALLOCATIONS: n for each image, or n on average."""
    if ask_balance and class_counts is None:
        raise ValueError("ask_balance needs class_counts, how many labels each class has so far")
    if use_mc_dropout:
        predicted = _committees(network, split, predictor, n_passes=mc_n_steps,
                                layers=mc_layers, temperature=temperature,
                                key=(seed, "mc_dropout", round_index))
    else:
        predicted = _predictions(network, split, predictor, temperature=temperature)

    weights = rarity(class_counts, power=ask_balance) if ask_balance else None
    most = most_of_an_image(allocate, n=n)

    def choose(index: int, position: int, scores: Download,
               predictions: Download | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels of an image `(n, 2)`, their scores, and the `quantiles` of all scores."""
        name = split.names[index]
        of_image = np.where(excluded[index], -np.inf, scores.numpy()[position])
        ranked = of_image
        if predictions is not None:
            ranked = favouring_rare(of_image, predictions.numpy()[position], weights)
        try:
            pixels = select_pixels(
                ranked, n=max(n, min(most, int((~np.isneginf(of_image)).sum()))), name=name,
                top_n_percent=top_n_percent, reverse_order=reverse_order, min_distance=min_distance,
                asked=None if asked is None else asked[index],
                rng=random_generator(seed, "query", round_index, name))
        except ValueError as error:
            raise InputError(f"{name}: {error}; did the training diverge? Try a smaller "
                             "--lr") from error
        return pixels, of_image[tuple(pixels.T)], quantiles(of_image) if most > n else np.zeros(0)

    n_ours = len(range(len(split))[predictor.share[0]::predictor.share[1]])
    chosen: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    said: list[Tensor] = []  # on the device until the end
    with (warnings_to_main(), ThreadPoolExecutor(_n_threads()) as pool,
          Progress(n_ours, f"query {round_index}", unit="image") as progress):
        def finish(batch: np.ndarray, probabilities: Tensor, choices: list[Future]) -> None:
            for index, choice in zip(batch.tolist(), choices, strict=True):
                chosen[index] = choice.result()
                progress.advance()
            said.append(_said_at(probabilities, [chosen[index][0] for index in batch.tolist()]))

        # The pixels of a batch are chosen while the network looks at the next one: nothing but
        # the choosing threads waits for scores.
        waiting = None
        for batch, probabilities, committee in predicted:
            seeds = [seed_of(seed, "acquisition", round_index, split.names[i]) for i in batch]
            scores = Download(_scores(strategy, probabilities, committee, vote_type=vote_type,
                                      seeds=seeds))
            predictions = None
            if weights is not None:
                predictions = Download(probabilities.argmax(dim=1).byte())
            choices = [pool.submit(choose, index, position, scores, predictions)
                       for position, index in enumerate(batch.tolist())]
            if waiting is not None:
                finish(*waiting)
            waiting = batch, probabilities, choices
        if waiting is not None:
            finish(*waiting)
    found = gathered(_per_image(chosen, said))
    numbers = ALLOCATIONS[allocate](np.stack([found[i][0] for i in range(len(split))]), n=n,
                                    top_n_percent=top_n_percent)
    pixels, scores, predictions, probabilities, entropies = (
        [found[i][column][:number] for i, number in enumerate(numbers)] for column in range(1, 6))
    query = Query(names=split.names, sizes=split.sizes, pixels=pixels, strategy=strategy, seed=seed,
                  scores=scores, predictions=predictions, probabilities=probabilities)
    return query, np.concatenate(entropies)


def _predictions(network: nn.Module, split: LoadedSplit, predictor: Predictor, *,
                 temperature: float) -> Iterator[tuple[np.ndarray, Tensor, None]]:
    """Batches, on the device: image indices, probabilities `(B, C, H, W)`, no committee."""
    for batch, logits in predictor.logits(network, split, to_labels=False, exact=True):
        yield batch, (logits / temperature).softmax(dim=1), None


def _committees(network: nn.Module, split: LoadedSplit, predictor: Predictor,
                **passes: object) -> Iterator[tuple[np.ndarray, Tensor, Committee]]:
    """Batches, on the device: image indices, mean probabilities `(B, C, H, W)`, the committee."""
    for batch, committee in predictor.committees(network, split, **passes):
        yield batch, committee.mean, committee


def _scores(strategy: str, probabilities: Tensor, committee: Committee | None, *, vote_type: str,
            seeds: Sequence[int]) -> Tensor:
    """`(B, H, W)` of probabilities `(B, C, H, W)`, or of their committee; image by image, each with
    a generator of its own."""
    distribution = probabilities if committee is None else VOTE_TYPES[vote_type](committee)
    scores = [score(strategy, distribution[i:i + 1], generator=torch.Generator().manual_seed(seed),
                    committee=committee and committee.of_image(i)) for i, seed in enumerate(seeds)]
    return torch.cat(scores)


def _said_at(probabilities: Tensor, pixels: Sequence[np.ndarray]) -> Tensor:
    """Class, its probability and the entropy at each image's (y, x) `(n, 2)`, of probabilities
    `(B, C, H, W)`: `(3, K)`, image after image."""
    counts = [len(of_image) for of_image in pixels]
    places = np.vstack([np.repeat(np.arange(len(pixels)), counts), np.concatenate(pixels).T])
    image, y, x = upload(places, probabilities.device)
    there = probabilities[image, :, y, x]  # (K, C)
    probability, prediction = there.max(dim=1)
    return torch.stack([prediction.float(), probability, entropy(there)])


def _per_image(chosen: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]],
               said: Sequence[Tensor]) -> dict[int, tuple[np.ndarray, ...]]:
    """Each image's `quantiles`, and its pixels' places, scores, classes, their probabilities and
    entropies, of what was chosen and said in the same order."""
    of_all, start, found = torch.cat(said, dim=1).cpu().numpy() if said else None, 0, {}
    for index, (pixels, scores, of_scores) in chosen.items():
        prediction, *rest = of_all[:, start:start + len(pixels)]
        found[index] = of_scores, pixels, scores, prediction.astype(np.int64), *rest
        start += len(pixels)
    return found


def _n_threads() -> int:
    """That choose pixels."""
    return max(1, min(_MOST_THREADS, (os.cpu_count() or 1) // local_world_size()))


def excluding(masks: Sequence[np.ndarray],
              pixels: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """Copies of bool masks `(H, W)` with the (y, x) `(n, 2)` of each image set as well; made when
    they are looked at."""
    def with_asked(index: int, mask: np.ndarray) -> np.ndarray:
        mask = mask.copy()
        mask[tuple(pixels[index].T)] = True
        return mask

    return Lazy(masks, with_asked)


# --- as a script ------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    with process_group():
        return run(parse_query_arguments(argv))


def run(args: argparse.Namespace) -> int:
    device = select_device(args.device)
    with main_first():  # what has to be downloaded is so once
        model = load_model(args.checkpoint, device=device)
    given = {name: value for name, value in asking_kwargs(args).items() if value is not None}
    asking = model.config["asking"] | given
    if asking["n"] == 0:
        raise InputError("say how many pixels to ask for: --n_pixels_by_us is 0, or the checkpoint "
                         "was trained on full masks")
    check_asking(**asking)
    split = model.load_train_split(args.dir_dataset, n_workers=args.n_workers,
                                   with_labels=args.exclude_void,
                                   cache=Cache(device=device, n_processes=local_world_size(),
                                               **cache_kwargs(args)))
    masks = void_masks(split) if args.exclude_void else empty_masks(split)
    asked = [np.zeros((0, 2), np.int64)] * len(split)
    for path in [*earlier_queries(args.checkpoint), *args.exclude]:
        earlier = read_query(path, names=split.names, sizes=split.sizes)
        asked = [np.concatenate(pixels) for pixels in zip(asked, earlier.pixels, strict=True)]
    masks = excluding(masks, asked)
    counts = None
    if asking.get("ask_balance"):
        counts = _answered(args.checkpoint, split, n_classes=model.spec.n_classes)
    query, _ = next_query(
        model.network, split, predictor=model.predictor(batch_size=args.batch_size),
        excluded=masks, seed=model.config["seed"] if args.seed is None else args.seed,
        round_index=model.config["round"] + 1, class_counts=counts, asked=asked, **asking)
    if not is_main():
        return 0
    beside = Path() if is_remote(args.checkpoint) else Path(args.checkpoint).parent
    folder = Path(args.dir_output or beside / "next_query")
    notice = write_query(folder, query, max_mask_gb=args.max_mask_gb)
    if notice:
        print(notice, file=sys.stderr)
    print(f"{query.n_pixels} pixels of {len(split)} images: {folder}")
    return 0


def _answered(checkpoint: str | Path, split: LoadedSplit, *, n_classes: int) -> np.ndarray:
    """How many labels each class has in the rounds of the checkpoint's run, `(C,)`. Raises
    InputError if they are not beside it."""
    paths = [path.with_name("labels.csv") for path in earlier_queries(checkpoint)]
    if not paths:
        raise InputError(f"{checkpoint}: its run's answers (labels.csv) are not beside it, and "
                         "classes are asked by how many they have; give --ask_balance 0")
    points = concatenate([read_labels(path, names=split.names, sizes=split.sizes,
                                      n_classes=n_classes) for path in paths])
    return class_counts(points.label, n_classes=n_classes)


def earlier_queries(checkpoint: str | Path) -> list[Path]:
    """The `query.json` of the checkpoint's round and of the rounds before it in the same run."""
    folder = Path(checkpoint).resolve().parent
    number = folder.name.removesuffix("_query")
    if not number.isdecimal():
        return []
    candidates = (folder.parent / f"{r}_query" / "query.json" for r in range(int(number) + 1))
    return [path for path in candidates if path.exists()]


if __name__ == "__main__":
    run_program(main)
