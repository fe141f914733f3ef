"""Measurements, for people: python -m tests.benchmarks.

What was measured on the way, and what came of it (Python 3.11, 2 cores, bursts of 5,000 to 10,000
runs; CPU of a run):

- A run's id drew its random part from the system.  That lets go of the interpreter's lock, for
  which ten workers then queue: 276 us a run.  Drawn once a process: 79 us.
- memory:// was SQLite without a file: 126 us a run without threads.  Rows in dicts: 53 us.
- The function's signature was looked at in each run, and two threading.Event were made: 20 us of
  those 53, in the end.
- The scheduler's lock: ten workers that run at the same time queue for it, and each time it
  changes hands two threads are switched.  The timer thread took it for each tick, and a run seven
  times; now it is once for a thousand ticks, and four times a run: 134 to 159 us became 94 to 140.
- SQLite: a commit waits for the disk, 100 us of CPU and more of time.  Writes that wait for one
  another are one transaction: 417 us a run became 315 with one lock for all, which brought 2.2
  writes together, and 265 with a queue, which brings 8 to 10 together.
- More than 4,096 schedules fell out of a cache, and were parsed twice: a start with 10,000 of them
  took 1.9 s, and takes 0.7 s, which is croniter's search for their next ticks.

What did not pay, or would have at somebody else's cost:

- sys.setswitchinterval(0.05): it made bursts three times cheaper, while the above was not done,
  and belongs to the application.
- SQLite with synchronous=NORMAL for the ends of runs: it halves the waits for the disk, and after
  a power failure a run that succeeded is found crashed.
- wal_autocheckpoint, cache_size and mmap_size of SQLite: no difference beyond the noise.
- To leave the live runs in one step with the task's lock: 122 us on the average of five bursts,
  and 118 without.
- One future for each worker instead of one a run, and a deque that they empty: 127 us became 107;
  and entering the live runs without the lock as well: 85.  It is the heart of what must not go
  wrong, and would be the one place where the order of two statements stands for a lock.
- Importing croniter late: more than half of the import is its, and each schedule needs it.
"""
