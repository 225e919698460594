"""What docs/performance.md says around its figures."""

INTRODUCTION = """
# Performance

`make bench` measures all of this and writes this page, in about 45 minutes; `make bench QUICK=1` shows in two minutes
that it works.

Three programs make the same table from the same market, and each table is compared with the market's own orders after
each run:

- the **plain script**, `benchmarks/plain.py`: httpx with asyncio, msgspec, pandas, boto3 batch writes from 8 threads,
  without retries, checks or state;
- **market-data**, the flow of this project, called in-process against a Prefect server that is up;
- **a task a page**, `benchmarks/one_task_a_page.py`: the way Prefect's documentation would have it, a mapped task run
  for each page and for each batch of 25 records.

They take turns (A B C A B C …). Each has a process of its own for a case, which first imports everything and does a
region of one page, and is measured from there: wall time from call to return, CPU of the process until Prefect has got
all events and logs, and, for the first run in the process, the peak of resident memory above what was resident before.
Figures are medians, with the least and the most in brackets.
"""

SIZES_SAY = """
*First fill* starts with an empty table. *Steady state* starts with the snapshot before, of which a tenth of the item
types has changed: what happens every five minutes. *Not modified*: the table has the snapshot already, and its
`Expires` has passed, so that ESI is asked. *Prefect alone* is a flow with nothing in it, and one of as many task runs
as The Forge's, with nothing in them; neither sends heartbeats.

Prefect's own settings are its defaults: a flow run sends heartbeats. A synchronous flow waits for their thread before
its call returns, and that looks up once a second, so that a call takes a whole number of seconds and a bit, half a
second more than its work on average. The run itself has ended by then: Prefect shows its true end, and a slot is free
again. No setting of Prefect's but one that can only be made in Python turns heartbeats off, and without them a run
that was killed would be shown as running for ever. *No heartbeats* is the same flow without them, *unseen* that flow
without tags, progress, events, artifacts and pictures. *As deployed* has what
`make up` sets for flow runs: heartbeats, and pages that are kept for a retry.
"""

LATENCY = """
433 pages, first fill, with a wait added to each of the market's answers, by the number of pages in flight.
"""

DEPLOYMENT = """
Seconds of `prefect deployment run … --watch`, with a worker of `make up`'s settings that has run both before: a
process for the command, another for the flow run, and all imports of both.
"""

STATES = """
One run of 433 pages each, by the timestamps that Prefect keeps itself: seconds after the flow run's start at which a
state's first task run began and its last one ended.
"""

PROFILE = """
The first fill of 433 pages, all threads: CPU milliseconds by the package of the function that was at work (`python`
is the interpreter's own library: sockets, zlib, threads, asyncio), by the innermost function of these programs that
was, and by function. Sampled every 5 ms with each thread's CPU clock; the sampler makes the runs a little slower.
"""

WHAT_FAVOURS_WHOM = """
## What favours whom

- Market, store, Prefect server and the program share one machine's cores. What they take is the same for all but the
  Prefect server's part, which only flows need.
- The plain script never deletes the records of types that are gone; it always gets an empty table, where that does
  not show. It does not read the table either, so it has no steady state: it writes everything.
- The plain script tries nothing twice, and takes a page of another snapshot, an order on two pages or a broken price
  as they come. market-data checks each of them, holds the lease while it writes, and compares before.
- market-data is measured in-process, with Prefect imported and its server up and near. A worker starts a process for
  each run, as the section on deployments shows.
- The local store takes about 19,000 records a second. A slower store makes steady state look better than here, a
  faster one worse.
- The market's answers come from memory, compressed beforehand, over a loopback connection without TLS.
"""
