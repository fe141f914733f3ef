"""Measurements, for people: python -m tests.benchmarks.

What was measured on the way, and what came of it (Python 3.11, 2 cores, bursts of 5,000 to 10,000
runs; CPU of a run):

- A run's id drew its random part from the system.  That lets go of the interpreter's lock, for
  which ten workers then queue: 276 us a run.  Drawn once a process: 79 us.
- memory:// was SQLite without a file: 126 us a run without threads.  Rows in dicts: 53 us.
- The function's signature was looked at in each run, and two threading.Event were made: 20 us of
  those 53, in the end.
- Locks that all runs take.  Who is interrupted while it holds one makes all others queue for it,
  and from then on each time it changes hands two threads are switched.  It does not matter how
  short it is held: with four such locks a run (the scheduler's, the metrics' as a part of it,
  memory://'s, the semaphore of the pool) it was 130 us, without the first two 115, without the
  third 85 to 97, and without any 43 to 52, as with one worker.  So what a run changes is guarded
  by a lock of its task, and workers empty one queue instead of being handed a future each.  What
  a run costs does not grow any more with their number: 44 to 55 us at 500 tasks.
- memory://'s lock, the last that all runs take: 13,500 of the 20,000 times in a burst it was found
  taken, and a run cost 49 to 177 us, by chance.  Taken only by a thread that runs (BriefLock), so
  that nobody holds it while he waits for the interpreter's: 45 to 56 us, each time.
- To enter 10,000 tasks in the ledger at once took as much memory again as a quarter of what they
  leave; in parts of a thousand it takes none to speak of.
- SQLite: a commit waits for the disk, 100 us of CPU and more of time.  Writes that wait for one
  another are one transaction: 417 us a run became 315 with one lock for all, which brought 2.2
  writes together, and 265 with a queue, which brings 8 to 10 together.
- A lone run began 0.2 ms after the floor's with memory://, and 0.9 ms with SQLite: its claim stood
  between its tick and its function, in code that is cold after a second asleep.  Claimed 5 ms
  ahead it begins no later than that, with any ledger: what is left is the end of a short wait.
- croniter is a fifth of the import; it is imported with the first cron schedule, which costs the
  same 12 ms there, and as much again to look up its version.  hashlib, hmac and secrets are 5 ms,
  most of it OpenSSL.
- More than 4,096 schedules fell out of a cache, and were parsed twice: a start with 10,000 of them
  took 1.9 s, and takes 0.7 s, which is croniter's search for their next ticks.

What a run costs without others: with one worker, which nothing interrupts, 40 us with memory://,
spread over 130 calls of which none takes a tenth.  With SQLite, one worker and synchronous=OFF,
which waits for nobody and no disk, it is 147 us, of which the two statements are 100.

- A list of 1,000 tasks beside a million rows counted the failures in a row of each: 77 ms, 37 with
  an index that holds all that is asked, and 31 without a copy of each instant.

What did not pay, or would have at somebody else's cost:

- sys.setswitchinterval(0.05): it made bursts three times cheaper, while the above was not done,
  and belongs to the application.
- SQLite with synchronous=NORMAL for the ends of runs: it halves the waits for the disk, and after
  a power failure a run that succeeded is found crashed.
- wal_autocheckpoint, cache_size and mmap_size of SQLite: no difference beyond the noise.
- To let go of the interpreter's lock before a transaction of SQLite, until nobody comes any more:
  it has 9.5 writes instead of 5.9, and a run costs 202 to 240 us instead of 231 to 260, but each
  commit beside a busy thread would wait for that.
- Importing sqlite3 late: 3 ms of the import, which a start then takes.
- Importing ctypes late: 3 ms of the import; but the first was then in the thread of a run that is
  interrupted, and hung 2 of 8 processes on Python 3.10.
- Waking the loop 2 ms before a tick, and claiming at the tick: 0.4 ms instead of 0.5.
- Ends of runs that ride in the transaction of the next claims, without being waited for: 185 us
  instead of 240 with SQLite, which is no budget met, and a run's end would be told by another.
"""
