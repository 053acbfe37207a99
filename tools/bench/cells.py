"""How many rows a search has to look at when they are grouped into cells, for several rules.

    python cells.py ../../shared/data           # 64,287 passages
    python cells.py ../../shared/data 300000    # and rows made between passages

Needs numpy. Scores are exact: what sketches and codes lose is not in these figures. For each rule: the share of
the ten nearest in the cells that are looked into, and the share of all rows that stand there. `own` sets
the rule's limit by the queries themselves; `rows` measures it on rows of the data, as a store does, which is
what `tiers/grouper` may know. The rule by level is that of `pure/margins`.
"""

import sys

import numpy as np


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def load(folder, rows, random):
    passages = unit(np.load(f"{folder}/wikitext_passages.f16.npy").astype(np.float32))
    queries = unit(np.load(f"{folder}/wikitext_queries.f16.npy").astype(np.float32))
    there, more = len(passages), rows - len(passages)
    if more <= 0:
        return passages[:rows], queries
    one = random.integers(0, there, more)
    other = (one + 1 + random.integers(0, 4, more)) % there
    part = (0.3 + 0.4 * random.random(more, dtype=np.float32))[:, None]
    between = unit(part * passages[one] + (1 - part) * passages[other])
    noise = unit(random.random((more, passages.shape[1]), dtype=np.float32) - 0.5)
    return np.concatenate([passages, unit(between + 0.25 * noise)]), queries


def in_parts(function, vectors, size=16384):
    return np.concatenate([function(vectors[at : at + size]) for at in range(0, len(vectors), size)])


def group(vectors, cells, rounds=6):
    sample = vectors[np.linspace(0, len(vectors) - 1, 32 * cells).astype(int)]
    means = sample[np.linspace(0, len(sample) - 1, cells).astype(int)].copy()
    for _ in range(rounds):
        nearest = (sample @ unit(means).T).argmax(1)
        for cell in range(cells):
            if (nearest == cell).any():
                means[cell] = sample[nearest == cell].mean(0)
    centroids = unit(means)
    return centroids, in_parts(lambda part: (part @ centroids.T).argmax(1), vectors)


class Asked:
    """Queries, their k nearest, and what a rule may look at."""

    def __init__(self, queries, vectors, centroids, cell_of, k, leave_out=None):
        scores = queries @ vectors.T
        if leave_out is not None:
            scores[np.arange(len(queries)), leave_out] = -9
        nearest = np.argpartition(-scores, k, axis=1)[:, :k]
        self.last = np.take_along_axis(scores, nearest, 1).min(1, keepdims=True)
        self.cosines = queries @ centroids.T
        self.best = self.cosines.max(1, keepdims=True)
        self.own = np.take_along_axis(self.cosines, cell_of[nearest], 1)


LEVELS = np.arange(32) / 32
LOOKS_MAX = 2**24


class Levels:
    """What rows say that are asked as if they were queries, each of its part of all rows."""

    def __init__(self, vectors, centroids, cell_of, asked):
        every = -(-len(vectors) * len(asked) // LOOKS_MAX)
        self.near = []
        for n, row in enumerate(asked):
            # Pieces of 512 rows in turn, as the grouper reads them; itself is no neighbour.
            seen = np.arange(len(vectors)) if every == 1 else np.concatenate(
                [np.arange(at, min(at + 512, len(vectors))) for at in range(n % every * 512, len(vectors), every * 512)]
            )
            seen = seen[seen != row]
            cosines = centroids @ vectors[row]
            self.near.append((vectors[seen] @ vectors[row], (cosines.max() - cosines)[cell_of[seen]]))

    def margins(self, share):
        """For each level the margin that holds this share of the rows as near, every asked row weighing the same."""
        table, above = [None] * len(LEVELS), 0.0
        for n in reversed(range(len(LEVELS))):
            near = [gaps[scores >= LEVELS[n]] for scores, gaps in self.near]
            near = [gaps for gaps in near if len(gaps)]
            if len(near) >= 16 and sum(map(len, near)) * (1 - share) >= 2:
                gaps = np.concatenate(near)
                weights = np.concatenate([np.full(len(gaps), 1 / len(gaps)) for gaps in near])
                order = np.argsort(gaps)
                at = np.searchsorted(np.cumsum(weights[order]), share * len(near))
                above = max(above, np.ceil(gaps[order][at] * 128) / 128)
                table[n] = above
        for n in range(len(LEVELS)):
            table[n] = table[n] if table[n] is not None else (table[n - 1] if n else 2.0)
        return np.array(table)


RULES = {
    "below the best centroid": lambda a, c: a.best - c,
    "the same, over sqrt(1 - last^2)": lambda a, c: (a.best - c) / np.sqrt(1 - a.last**2),
    "below the last of the ten": lambda a, c: a.last - c,
    "share of the last of the ten": lambda a, c: -c / a.last,
}


def main():
    folder, rows = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 64287
    random = np.random.default_rng(1)
    vectors, queries = load(folder, rows, random)
    cells = int(len(vectors) ** 0.5)
    centroids, cell_of = group(vectors, cells)
    sizes = np.bincount(cell_of, minlength=cells)
    asked = Asked(queries[:400], vectors, centroids, cell_of, 10)
    chosen = random.choice(len(vectors), 128, replace=False)
    measured = Asked(vectors[chosen], vectors, centroids, cell_of, 10, chosen)
    hundred = Asked(vectors[chosen], vectors, centroids, cell_of, 100, chosen)
    levels = Levels(vectors, centroids, cell_of, random.choice(len(vectors), 256, replace=False))
    print(f"{len(vectors)} rows, {cells} cells; the tenth lies at {asked.last.mean():.3f} from a query,"
          f" {measured.last.mean():.3f} from a row")
    aside = RULES["the same, over sqrt(1 - last^2)"]
    for target in (0.96, 0.992):
        for name, limit in (
            ("over sqrt(1 - last^2), of a hundred", np.quantile(aside(hundred, hundred.own), target)),
            ("by level", None),
        ):
            if limit is None:
                limit = np.interp(asked.last, LEVELS, levels.margins(target))
                own, all_cells = asked.best - asked.own, asked.best - asked.cosines
            else:
                own, all_cells = aside(asked, asked.own), aside(asked, asked.cosines)
            share = ((all_cells <= limit) * sizes).sum(1) / len(vectors)
            print(f"{target} {name}, rows: recall {(own <= limit).mean():.4f},"
                  f" rows {share.mean():.3f}, median {np.median(share):.3f}")
    for target in (0.95, 0.99):
        for name, rule in RULES.items():
            for kind, source in (("own", asked), ("rows", measured)):
                limit = np.quantile(rule(source, source.own), target)
                recall = (rule(asked, asked.own) <= limit).mean()
                share = ((rule(asked, asked.cosines) <= limit) * sizes).sum(1) / len(vectors)
                print(f"{target} {name}, {kind}: limit {limit:.3f}, recall {recall:.4f},"
                      f" rows {share.mean():.3f}, median {np.median(share):.3f}")


main()
