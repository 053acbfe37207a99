#!/usr/bin/env python3
"""Makes the excerpt in this folder from a full set of passages, embeddings and queries.

    make_excerpt.py PASSAGES.txt PASSAGES.f16.npy QUERIES.txt QUERIES.f16.npy

Passages: one a line, row i of the array is the embedding of line i. The first 2,800 passages and
the first 100 queries are taken as they are. The truth is computed here: cosine in f32 on the f16
values, best ten first, equal scores by lower row. Needs numpy.
"""

import pathlib
import sys

import numpy

PASSAGES, QUERIES, BEST = 2800, 100, 10
HERE = pathlib.Path(__file__).resolve().parent


def lines(path, count):
    with open(path, encoding="utf-8", newline="\n") as file:
        return [file.readline() for _ in range(count)]


def unit(rows):
    rows = rows.astype(numpy.float32)
    return rows / numpy.sqrt((rows * rows).sum(axis=1, dtype=numpy.float32))[:, None]


def main(passages_txt, passages_npy, queries_txt, queries_npy):
    passages = numpy.load(passages_npy, mmap_mode="r")[:PASSAGES]
    queries = numpy.load(queries_npy, mmap_mode="r")[:QUERIES]
    scores = unit(queries) @ unit(passages).T
    truth = numpy.argsort(-scores, axis=1, kind="stable")[:, :BEST].astype(numpy.int32)
    for name, array in [("passages.f16", passages), ("queries.f16", queries), ("truth.i32", truth)]:
        numpy.save(HERE / f"{name}.npy", numpy.ascontiguousarray(array))
    for name, source, count in [("passages", passages_txt, PASSAGES), ("queries", queries_txt, QUERIES)]:
        text = "".join(lines(source, count))
        (HERE / f"{name}.txt").write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
