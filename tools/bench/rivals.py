"""Rivals of pmll that are reached from Python: one subject, one measurement, one line of JSON.

`pmll-bench compare --python PYTHON` starts this file as

    PYTHON rivals.py WORK SUBJECT --data DIR --state DIR --rows N --threads N

with WORK one of build, search, filter, open, puts, bulk. The line has the fields of `src/report.rs`.
A wrong answer, a missing package or a recall that was not reached is a message on standard error and
exit code 1, never a figure. Nothing is downloaded. The overhead of calling from Python is inside the
times: a few microseconds a call.
"""
import time

STARTED = time.perf_counter()

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading

K = 10
WARM_UP = 200
PASSES = 3
DIM = 384
BATCH = 256
CLASSES, CLASS = 100, 7
PUT_SECONDS = 2.0
PAYLOAD_BYTES = 200
EXPANSIONS = [48, 64, 96, 128, 192, 256]
FIELDS = [
    "work", "subject", "rows", "recall", "p50_us", "p99_us", "rate_per_s",
    "resident_bytes", "disk_bytes", "note",
]


class Failure(Exception):
    """What goes to standard error as it is."""


def need(module, package):
    """Imports a module, or says which package has it."""
    try:
        return __import__(module)
    except ImportError as error:
        raise Failure(f"package {package} is missing: pip install {package} ({error})")


def numpy():
    return need("numpy", "numpy")


# What the machine says.

def resident_bytes():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def disk_bytes(path):
    if not os.path.isdir(path):
        return os.stat(path).st_blocks * 512
    return sum(disk_bytes(os.path.join(path, name)) for name in os.listdir(path))


# Data and truth.

def units(args):
    """The first rows, normalised to unit length in f32."""
    np = numpy()
    halves = np.load(os.path.join(args.data, "wikitext_passages.f16.npy"), mmap_mode="r")
    if args.rows > len(halves):
        raise Failure(f"{args.rows} rows asked, {len(halves)} are there")
    rows = np.ascontiguousarray(halves[: args.rows], dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def queries(args, first_only=False):
    np = numpy()
    halves = np.load(os.path.join(args.data, "wikitext_queries.f16.npy"), mmap_mode="r")
    return np.ascontiguousarray(halves[:1] if first_only else halves, dtype=np.float32)


def truth(args, filtered=False):
    """The shared file for all rows; else what pmll-bench computed and keeps in the state folder."""
    np = numpy()
    rows = len(np.load(os.path.join(args.data, "wikitext_passages.f16.npy"), mmap_mode="r"))
    if not filtered and args.rows == rows:
        return np.load(os.path.join(args.data, "wikitext_gt.i32.npy"))[:, :K].astype(np.int64)
    kind = "filtered" if filtered else "all"
    path = os.path.join(args.state, f"truth-{kind}-{args.rows}.npy")
    if not os.path.exists(path):
        raise Failure(f"{path} is missing: pmll-bench writes it when it measures pmll there")
    return np.load(path).astype(np.int64)


def texts(args):
    """The texts of the first rows, which pmll-bench unpacks into the state folder."""
    path = os.path.join(args.state, "texts.txt")
    if not os.path.exists(path):
        raise Failure(f"{path} is missing: pmll-bench writes it")
    with open(path, encoding="utf-8", newline="\n") as file:
        lines = file.read().split("\n")[: args.rows]
    if len(lines) != args.rows:
        raise Failure(f"{args.rows} texts asked, {len(lines)} are there")
    return lines


def hits(ids, best):
    """How many of the true best ten an answer has."""
    found = {int(i) for i in ids}
    if len(ids) != K or len(found) != K or -1 in found:
        raise Failure(f"{len(found)} rows were answered, {K} different ones asked")
    return len(found & set(best.tolist()))


def recall_of(ask, asked, best):
    return sum(hits(ask(q), b) for q, b in zip(asked, best)) / (len(asked) * K)


def percentile(times, percent):
    ordered = sorted(times)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def passes(ask, asked, best):
    """As `src/times.rs`: warm up, three passes, the one with the middle p50."""
    for query in asked[:WARM_UP]:
        ask(query)
    results = []
    for _ in range(PASSES):
        times, answers = [], []
        for query in asked:
            before = time.perf_counter()
            answer = ask(query)
            times.append((time.perf_counter() - before) * 1e6)
            answers.append(answer)
        recall = sum(hits(a, b) for a, b in zip(answers, best)) / (len(asked) * K)
        results.append((percentile(times, 50), percentile(times, 99), recall))
    return sorted(results)[PASSES // 2]


# Indexes. Each builds into a file, opens it, and gives a function from a query of shape (1, 384) to
# ten row numbers. `expansion` is what graph indexes search with.

class Faiss:
    """faiss: product quantisation of 4 bits with exact refinement, HNSW over 8 bits, or flat."""

    def __init__(self, name, args):
        self.name, self.args = name, args
        self.faiss = need("faiss", "faiss-cpu")
        self.path = os.path.join(args.state, f"{name}.faiss")
        self.sweeps = name == "faiss-hnsw-sq8"

    def build(self, rows):
        faiss = self.faiss
        product = faiss.METRIC_INNER_PRODUCT
        if self.name == "faiss-pq4fs-refine":
            index = faiss.IndexRefineFlat(faiss.IndexPQFastScan(DIM, 192, 4, product))
        elif self.name == "faiss-hnsw-sq8":
            index = faiss.IndexHNSWSQ(DIM, faiss.ScalarQuantizer.QT_8bit, 16, product)
            index.hnsw.efConstruction = 128
        else:
            index = faiss.IndexFlatIP(DIM)
        index.train(rows)
        index.add(rows)
        faiss.write_index(index, self.path)

    def open(self):
        self.index = self.faiss.read_index(self.path)
        self.faiss.omp_set_num_threads(1)
        if self.name == "faiss-pq4fs-refine":
            self.k_factor = 3 if self.args.rows <= 10_000 else 4
            self.index.k_factor = self.k_factor
            self.note = f"PQ192x4fs, k_factor {self.k_factor}; no texts"
        else:
            self.note = "no texts"

    def size(self):
        return self.index.ntotal

    def expand(self, expansion):
        self.index.hnsw.efSearch = expansion

    def ask(self, query):
        return self.index.search(query, K)[1][0]


class Hnswlib:
    """hnswlib: HNSW over f32."""

    sweeps = True

    def __init__(self, name, args):
        self.args = args
        self.hnswlib = need("hnswlib", "hnswlib")
        self.path = os.path.join(args.state, "hnswlib.bin")
        self.note = "f32; no texts"

    def build(self, rows):
        index = self.hnswlib.Index(space="ip", dim=DIM)
        index.init_index(max_elements=len(rows), M=16, ef_construction=128)
        index.add_items(rows, numpy().arange(len(rows)))
        index.save_index(self.path)

    def open(self):
        self.index = self.hnswlib.Index(space="ip", dim=DIM)
        self.index.load_index(self.path)
        self.index.set_num_threads(1)

    def size(self):
        return self.index.get_current_count()

    def expand(self, expansion):
        self.index.set_ef(expansion)

    def ask(self, query):
        return self.index.knn_query(query, K, num_threads=1)[0][0]


class Turbovec:
    """turbovec with 4 bits, and twice as many candidates scored again by exact f32 rows in RAM."""

    sweeps = False

    def __init__(self, name, args):
        self.args = args
        self.turbovec = need("turbovec", "turbovec")
        self.path = os.path.join(args.state, "turbovec-4bit.tv")
        self.note = "rescored x2 by f32 rows in RAM; no texts"

    def build(self, rows):
        np = numpy()
        index = self.turbovec.TurboQuantIndex(dim=DIM, bit_width=4)
        sample = np.random.default_rng(0).permutation(len(rows))[:1024]
        index.calibrate(np.ascontiguousarray(rows[sample]))
        index.add(rows)
        index.write(self.path)
        np.save(self.path + ".rows.npy", rows)

    def open(self):
        self.index = self.turbovec.TurboQuantIndex.load(self.path)
        self.rows = numpy().load(self.path + ".rows.npy")
        self.argsort = numpy().argsort

    def size(self):
        return len(self.index)

    def ask(self, query):
        ids = self.index.search(query, 2 * K)[1][0]
        scores = self.rows[ids] @ query[0]
        return ids[self.argsort(-scores)[:K]]


def index_of(name, args):
    if name.startswith("faiss"):
        return Faiss(name, args)
    if name == "hnswlib":
        return Hnswlib(name, args)
    if name == "turbovec-4bit":
        return Turbovec(name, args)
    raise Failure(f"{name}: no such subject")


def split(subject):
    """`hnswlib-95` is hnswlib asked for recall 0.95; a subject without a number is asked for 0.99."""
    head, _, tail = subject.rpartition("-")
    return (head, int(tail) / 100) if tail in ("95", "99") else (subject, 0.99)


def done_path(name, args):
    return os.path.join(args.state, f"{name}.done")


def sweep_of(name, args):
    with open(done_path(name, args)) as file:
        return json.load(file)


def least_expansion(name, args, target):
    tried = sweep_of(name, args)
    for expansion, recall in tried:
        if recall >= target:
            return expansion
    best = max(recall for _, recall in tried)
    raise Failure(f"no expansion up to {EXPANSIONS[-1]} reaches recall {target}; the best is {best:.4f}")


def build(args):
    name, _ = split(args.subject)
    if os.path.exists(done_path(name, args)):
        return None
    index = index_of(name, args)
    index.build(units(args))
    tried = []
    if index.sweeps:
        # On the measured queries themselves: that favours the rival.
        index.open()
        asked, best = queries(args), truth(args)
        for expansion in EXPANSIONS:
            index.expand(expansion)
            tried.append((expansion, recall_of(index.ask, [q[None] for q in asked], best)))
    with open(done_path(name, args), "w") as file:
        json.dump(tried, file)
    return None


def reached(recall, target):
    if recall < target:
        raise Failure(f"recall {recall:.4f} is below the {target} that was asked for")


def measured(args, index, ask, asked, best, target, before, note):
    if index.size() != args.rows:
        raise Failure(f"{args.rows} rows were added, {index.size()} are there")
    p50_us, p99_us, recall = passes(ask, asked, best)
    resident = resident_bytes() - before
    reached(recall, target)
    files = [index.path, index.path + ".rows.npy"]
    return {
        "rows": args.rows, "recall": recall, "p50_us": p50_us, "p99_us": p99_us,
        "rate_per_s": 1e6 / p50_us, "resident_bytes": max(0, resident),
        "disk_bytes": sum(disk_bytes(f) for f in files if os.path.exists(f)), "note": note,
    }


def search(args):
    name, target = split(args.subject)
    index = index_of(name, args)
    asked, best = [q[None] for q in queries(args)], truth(args)
    before = resident_bytes()
    index.open()
    note = index.note
    if index.sweeps:
        expansion = least_expansion(name, args, target)
        index.expand(expansion)
        note = f"ef {expansion}; {note}"
    return measured(args, index, index.ask, asked, best, target, before, note)


def filter_(args):
    if args.subject != "faiss-flat-bitmap":
        raise Failure(f"{args.subject}: no such subject")
    np = numpy()
    index = Faiss("faiss-flat", args)
    faiss = index.faiss
    asked, best = [q[None] for q in queries(args)], truth(args, filtered=True)
    before = resident_bytes()
    index.open()
    mask = np.arange(args.rows) % CLASSES == CLASS
    selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
    parameters = faiss.SearchParameters(sel=selector)
    ask = lambda query: index.index.search(query, K, params=parameters)[1][0]
    # Exact, but for ties that inner product and cosine order differently.
    return measured(args, index, ask, asked, best, 0.999, before, "bitmap made once; no texts")


def open_(args):
    name, _ = split(args.subject)
    query = queries(args, first_only=True)
    index = index_of(name, args)
    index.open()
    note = f"imports included, start of the interpreter not; {index.note}"
    if index.sweeps:
        tried = sweep_of(name, args)
        index.expand(next((e for e, recall in tried if recall >= 0.99), EXPANSIONS[-1]))
    answer = index.ask(query)
    time_us = (time.perf_counter() - STARTED) * 1e6
    found = hits(answer, truth(args)[0])
    if found < 8:
        raise Failure(f"the first answer has {found} of the true best 10")
    return {
        "rows": args.rows, "recall": found / K, "p50_us": time_us,
        "disk_bytes": disk_bytes(index.path), "note": note,
    }


# Engines.

class Lmdb:
    """LMDB with its default sync, one transaction a put or a batch."""

    def __init__(self, folder):
        lmdb = need("lmdb", "lmdb")
        self.env = lmdb.open(os.path.join(folder, "lmdb"), map_size=4 << 30)

    def put(self, key, value):
        with self.env.begin(write=True) as transaction:
            transaction.put(key.to_bytes(8, "big"), value)

    def put_many(self, first, records):
        with self.env.begin(write=True) as transaction:
            for key, (vector, text) in enumerate(records, first):
                transaction.put(key.to_bytes(8, "big"), vector + text.encode())

    def tally(self):
        with self.env.begin() as transaction:
            sizes = [len(value) for _, value in transaction.cursor()]
        return len(sizes), sum(sizes)

    def close(self):
        self.env.close()


def sqlite_module():
    """The standard sqlite3 where it loads extensions, else the one of pysqlite3."""
    import sqlite3

    if hasattr(sqlite3.Connection, "enable_load_extension"):
        return sqlite3
    try:
        import pysqlite3

        return pysqlite3
    except ImportError:
        raise Failure(
            "this interpreter's sqlite3 cannot load extensions: pip install pysqlite3-binary"
        )


class SqliteVec:
    """sqlite-vec: vectors and texts in one vec0 table, WAL with synchronous=FULL."""

    def __init__(self, folder):
        sqlite_vec = need("sqlite_vec", "sqlite-vec")
        path = os.path.join(folder, "vec.sqlite")
        self.db = sqlite_module().connect(path, isolation_level=None)
        self.db.enable_load_extension(True)
        sqlite_vec.load(self.db)
        (mode,) = self.db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise Failure(f"the journal is {mode}, not wal")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute(
            "CREATE VIRTUAL TABLE IF NOT EXISTS bench USING "
            f"vec0(vector float[{DIM}] distance_metric=cosine, +payload text)"
        )

    def put_many(self, first, records):
        self.db.execute("BEGIN")
        self.db.executemany(
            "INSERT INTO bench (rowid, vector, payload) VALUES (?, ?, ?)",
            ((key, vector, text) for key, (vector, text) in enumerate(records, first)),
        )
        self.db.execute("COMMIT")

    def tally(self):
        sums = "SELECT count(*), sum(length(vector)) + sum(length(CAST(payload AS BLOB))) FROM bench"
        return self.db.execute(sums).fetchone()

    def close(self):
        self.db.close()


ENGINES = {"lmdb": Lmdb, "sqlite-vec": SqliteVec}


def engine(args):
    if args.subject not in ENGINES:
        raise Failure(f"{args.subject}: no such subject")
    return ENGINES[args.subject]


def reopened(make, folder, rows, size):
    """Bytes on disk, after a new handle found all rows and all their bytes."""
    on_disk = disk_bytes(folder)
    again = make(folder)
    there = tuple(again.tally())
    again.close()
    if there != (rows, size):
        raise Failure(f"acknowledged {rows} rows of {size} bytes, after reopening {there}")
    return on_disk


def bulk(args):
    make = engine(args)
    vectors = [row.tobytes() for row in units(args)]
    records = list(zip(vectors, texts(args)))
    folder = tempfile.mkdtemp(dir=args.state)
    try:
        store = make(folder)
        before = resident_bytes()
        started = time.perf_counter()
        for first in range(0, len(records), BATCH):
            store.put_many(first, records[first : first + BATCH])
        took = time.perf_counter() - started
        resident = resident_bytes() - before
        store.close()
        size = sum(len(vector) + len(text.encode()) for vector, text in records)
        on_disk = reopened(make, folder, len(records), size)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "rows": len(records), "rate_per_s": len(records) / took,
        "resident_bytes": max(0, resident), "disk_bytes": on_disk,
        "note": f"{on_disk / len(records):.0f} B/row on disk; from Python",
    }


def puts(args):
    make = engine(args)
    if not hasattr(make, "put"):
        raise Failure(f"{args.subject}: no single puts")
    values = [os.urandom(DIM * 4 + PAYLOAD_BYTES) for _ in range(64)]
    folder = tempfile.mkdtemp(dir=args.state)
    try:
        store = make(folder)
        store.put((1 << 32) - 1, values[0])
        times, errors = [], []
        started = time.perf_counter()

        def work(thread):
            mine = []
            try:
                turn = 0
                while time.perf_counter() - started < PUT_SECONDS:
                    before = time.perf_counter()
                    store.put(thread << 40 | turn, values[turn % 64])
                    mine.append((time.perf_counter() - before) * 1e6)
                    turn += 1
            except Exception as error:
                errors.append(error)
            times.extend(mine)

        workers = [threading.Thread(target=work, args=(n,)) for n in range(args.threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        took = time.perf_counter() - started
        if errors:
            raise Failure(f"a put failed: {errors[0]}")
        store.close()
        rows = len(times) + 1
        on_disk = reopened(make, folder, rows, rows * len(values[0]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "work": f"puts-{args.threads}", "rows": rows, "rate_per_s": len(times) / took,
        "p50_us": percentile(times, 50), "p99_us": percentile(times, 99), "disk_bytes": on_disk,
        "note": "from Python",
    }


WORKS = {
    "build": build, "search": search, "filter": filter_, "open": open_, "puts": puts, "bulk": bulk,
}


def main():
    parser = argparse.ArgumentParser(description="One measurement of one rival, as a line of JSON.")
    parser.add_argument("work", choices=sorted(WORKS))
    parser.add_argument("subject")
    parser.add_argument("--data", required=True)
    parser.add_argument("--state", required=True)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if args.work != "build":
        # Before any package reads them.
        for name in ("OMP", "OPENBLAS", "MKL", "RAYON", "NUMEXPR"):
            os.environ[f"{name}_NUM_THREADS"] = "1"
    try:
        found = WORKS[args.work](args)
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    if found is not None:
        report = {"work": args.work, "subject": args.subject, **found}
        print(json.dumps({field: report.get(field) for field in FIELDS}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
