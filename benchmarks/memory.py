"""Memory of a worker after many requests, and of each further worker."""

from benchmarks.process_tree import pss_mb, rss_mb, tree
from benchmarks.run import CONNECTIONS, Run
from benchmarks.server import Server
from benchmarks.workloads import LIST

WORKERS = 4


def measure_memory(run: Run) -> None:
    figures = run.results.figures
    with run.launcher() as launcher:
        run.progress("memory of a worker")
        totoro = launcher.totoro()
        # The first process starts and replaces workers, here one.
        _, worker = tree(totoro.pids[0])
        send_requests(run, totoro)
        figures["worker_rss_mb"] = rss_mb(worker)
        send_requests(run, totoro)
        figures["worker_growth_mb"] = rss_mb(worker) - figures["worker_rss_mb"]
        run.progress(f"memory of {WORKERS} workers")
        totals = {}
        for workers in (1, WORKERS):
            # Workers share data through Redis.
            variables = {"WEB_CONCURRENCY": str(workers), "REDIS_URL": launcher.redis_url()}
            totoro = launcher.totoro(**variables)
            send_requests(run, totoro)
            totals[workers] = pss_mb(totoro.pids[0])
        figures["one_worker_pss_mb"] = totals[1]
        figures["further_worker_pss_mb"] = (totals[WORKERS] - totals[1]) / (WORKERS - 1)


def send_requests(run: Run, server: Server) -> None:
    requests = 0
    while requests < run.options.requests:
        requests += server.measure(LIST, connections=CONNECTIONS, seconds=1).requests
