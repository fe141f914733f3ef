"""Adopting crontabs: each line becomes a task that ticks and runs as cron would have it."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pwd
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from datetime import datetime, timezone
from pathlib import Path

import pytest

import housekeeper as hk
from tests import cron_oracle
from tests.environment import environment
from tests.waiting import eventually

FILE = Path(hk.__file__).resolve()
ROOT = os.geteuid() == 0

# Lines as public repositories have them, in our own words; below each the task's name, schedule
# and first two ticks of 2026 in UTC (a Thursday begins it), and the command where it is another.
CORPUS = r"""
*/5 * * * * /usr/local/bin/check-disks.sh
    check-disks | */5 * * * * | 2026-01-01 00:05, 2026-01-01 00:10
0 2 * * * /home/app/bin/backup.sh >> /home/app/log/backup.log 2>&1
    backup | 0 2 * * * | 2026-01-01 02:00, 2026-01-02 02:00
30 3 * * 0 /usr/bin/certbot renew --quiet --post-hook "systemctl reload nginx"
    certbot-renew | 30 3 * * 0 | 2026-01-04 03:30, 2026-01-11 03:30
* * * * * cd /srv/shop && php artisan schedule:run >> /dev/null 2>&1
    artisan-schedule-run | * * * * * | 2026-01-01 00:01, 2026-01-01 00:02
*/15 * * * * php -f /var/www/nextcloud/cron.php
    cron | */15 * * * * | 2026-01-01 00:15, 2026-01-01 00:30
0 */6 * * * /usr/bin/docker system prune -af --filter "until=24h"
    docker-system | 0 */6 * * * | 2026-01-01 06:00, 2026-01-01 12:00
0 4 1 * * find /var/log/app -name "*.gz" -mtime +30 -delete
    find | 0 4 1 * * | 2026-01-01 04:00, 2026-02-01 04:00
0 0 * * mon,wed,fri /opt/reports/weekday.py --send
    weekday | 0 0 * * mon,wed,fri | 2026-01-02 00:00, 2026-01-05 00:00
5 4 * * sun /usr/sbin/logrotate /etc/logrotate.d/app
    logrotate | 5 4 * * sun | 2026-01-04 04:05, 2026-01-11 04:05
0 9-17 * * 1-5 /home/dev/bin/standup-reminder
    standup-reminder | 0 9-17 * * 1-5 | 2026-01-01 09:00, 2026-01-01 10:00
0,30 8-18/2 * * * curl -fsS https://example.com/ping > /dev/null
    curl | 0,30 8-18/2 * * * | 2026-01-01 08:00, 2026-01-01 08:30
15 14 1 * * $HOME/bin/monthly
    monthly | 15 14 1 * * | 2026-01-01 14:15, 2026-02-01 14:15
0 22 * * 1-5 mail -s "It is 10pm" joe%Joe,%%Where are your kids?%
    mail | 0 22 * * 1-5 | 2026-01-01 22:00, 2026-01-02 22:00
    printf '%s\n' Joe, '' 'Where are your kids?' | /bin/sh -c 'mail -s "It is 10pm" joe'
23 0-23/2 * * * echo "run 23 minutes after midn, 2am, 4am"
    echo | 23 0-23/2 * * * | 2026-01-01 00:23, 2026-01-01 02:23
@daily /usr/local/bin/borg-backup
    borg-backup | @daily | 2026-01-02 00:00, 2026-01-03 00:00
@hourly cd ~/feeds && ./fetch.rb
    fetch | @hourly | 2026-01-01 01:00, 2026-01-01 02:00
@weekly apt-get update && apt-get -y upgrade
    apt-get-update | @weekly | 2026-01-04 00:00, 2026-01-11 00:00
@monthly python3 -m reports.monthly
    reports-monthly | @monthly | 2026-02-01 00:00, 2026-03-01 00:00
@yearly echo "Happy new year" | mail -s greetings all
    mail | @yearly | 2027-01-01 00:00, 2028-01-01 00:00
@annually /opt/licence/renew
    renew | @annually | 2027-01-01 00:00, 2028-01-01 00:00
@midnight /usr/bin/flock -n /tmp/night.lock /opt/night/run
    run | @midnight | 2026-01-02 00:00, 2026-01-03 00:00
@reboot /home/pi/start-camera.sh &
    start-camera | at startup | -
    setsid -f /bin/sh -c '/home/pi/start-camera.sh &' >/dev/null 2>&1
@reboot sleep 60 && /usr/bin/screen -dmS bot python3 /home/pi/bot.py
    screen | at startup | -
0 1 * * * pg_dump shop | gzip > /backup/shop-$(date +\%F).sql.gz
    pg-dump-shop | 0 1 * * * | 2026-01-01 01:00, 2026-01-02 01:00
    pg_dump shop | gzip > /backup/shop-$(date +%F).sql.gz
0 1 * * 6 mysqldump --all-databases > "/backup/all_$(date +\%Y\%m\%d).sql"
    mysqldump | 0 1 * * 6 | 2026-01-03 01:00, 2026-01-10 01:00
    mysqldump --all-databases > "/backup/all_$(date +%Y%m%d).sql"
10 3 * * * test -e /run/systemd/system || SERVICE_MODE=1 /sbin/e2scrub_all -A -r
    e2scrub-all | 10 3 * * * | 2026-01-01 03:10, 2026-01-02 03:10
17 4 * * * [ -x /usr/bin/mandb ] && nice -n 19 ionice -c3 /usr/bin/mandb --quiet
    mandb | 17 4 * * * | 2026-01-01 04:17, 2026-01-02 04:17
*/10 * * * * flock -n /var/lock/sync.lock rsync -a /srv/in/ /srv/out/
    rsync | */10 * * * * | 2026-01-01 00:10, 2026-01-01 00:20
0 5 * * 1 tar -zcf /var/backups/home.tgz /home/
    tar | 0 5 * * 1 | 2026-01-05 05:00, 2026-01-12 05:00
0 0 1 1,4,7,10 * /opt/quarter/close-books
    close-books | 0 0 1 1,4,7,10 * | 2026-04-01 00:00, 2026-07-01 00:00
0 12 * * 7 /usr/bin/git -C /srv/wiki pull
    git | 0 12 * * 7 | 2026-01-04 12:00, 2026-01-11 12:00
45 23 31 12 * /usr/local/bin/year-end
    year-end | 45 23 31 12 * | 2026-12-31 23:45, 2027-12-31 23:45
0 8 * * 1-5 . $HOME/.profile; python manage.py send_digest
    manage-send-digest | 0 8 * * 1-5 | 2026-01-01 08:00, 2026-01-02 08:00
*/20 9-17 * * mon-fri /usr/bin/node /srv/bot/index.js
    index | */20 9-17 * * mon-fri | 2026-01-01 09:00, 2026-01-01 09:20
0 3 * * 2-6 /usr/bin/env bash -lc 'cd /srv/app && bin/rails runner "Job.purge"'
    rails-runner | 0 3 * * 2-6 | 2026-01-01 03:00, 2026-01-02 03:00
30 4 1,15 * 5 /usr/local/bin/either-day
    either-day | 30 4 1,15 * 5 | 2026-01-01 04:30, 2026-01-02 04:30
0 0 13 * 5 /usr/local/bin/unlucky
    unlucky | 0 0 13 * 5 | 2026-01-02 00:00, 2026-01-09 00:00
0 7 1-7 * * [ "$(date +\%u)" = 1 ] && /usr/local/bin/first-monday
    first-monday | 0 7 1-7 * * | 2026-01-01 07:00, 2026-01-02 07:00
    [ "$(date +%u)" = 1 ] && /usr/local/bin/first-monday
0 7 */2 * 1 /usr/local/bin/both-days
    both-days | 0 7 */2 * 1 | 2026-01-05 07:00, 2026-01-19 07:00
1,2,3,5,20-25,30-35,59 23 31 12 * /bin/true
    true | 1,2,3,5,20-25,30-35,59 23 31 12 * | 2026-12-31 23:01, 2026-12-31 23:02
59 23 * * * /usr/bin/awk '{s+=$1} END {print s > "/tmp/sum"}' /var/log/hits
    awk | 59 23 * * * | 2026-01-01 23:59, 2026-01-02 23:59
0-59/10 * * * * wget -q -O - https://example.com/wp-cron.php?doing_wp_cron >/dev/null 2>&1
    wget | 0-59/10 * * * * | 2026-01-01 00:10, 2026-01-01 00:20
00 05 * * 01 /bin/systemctl restart worker.service
    systemctl-restart | 00 05 * * 01 | 2026-01-05 05:00, 2026-01-12 05:00
-*/15 * * * * /usr/lib/sa/sa1 1 1
    sa1 | */15 * * * * | 2026-01-01 00:15, 2026-01-01 00:30
0 0 * jan-mar * /opt/first/quarter
    quarter | 0 0 * jan-mar * | 2026-01-02 00:00, 2026-01-03 00:00
0 0 * JAN,jul SUN /opt/upper/lower
    lower | 0 0 * JAN,jul SUN | 2026-01-04 00:00, 2026-01-11 00:00
0 2 29 2 * /opt/leap/day
    day | 0 2 29 2 * | 2028-02-29 02:00, 2032-02-29 02:00
0 18 * * * DISPLAY=:0 XDG_RUNTIME_DIR=/run/user/1000 notify-send "Time's up"
    notify-send | 0 18 * * * | 2026-01-01 18:00, 2026-01-02 18:00
*/30 * * * * /usr/bin/curl -s -d "msg=50\% of $(hostname)" https://example.com/hook
    curl | */30 * * * * | 2026-01-01 00:30, 2026-01-01 01:00
    /usr/bin/curl -s -d "msg=50% of $(hostname)" https://example.com/hook
0 23 * * * cat > /tmp/note%first line%second \% line
    cat | 0 23 * * * | 2026-01-01 23:00, 2026-01-02 23:00
    printf '%s\n' 'first line' 'second % line' | /bin/sh -c 'cat > /tmp/note'
5 5 * * * echo 'a\\b' "c\"d" \$HOME
    echo | 5 5 * * * | 2026-01-01 05:05, 2026-01-02 05:05
12 3 * * * tmpreaper --protect '/tmp/{a,b}/*' 7d /tmp
    tmpreaper | 12 3 * * * | 2026-01-01 03:12, 2026-01-02 03:12
*/2 * * * * pgrep -f worker.py || nohup python3 /srv/worker.py &
    pgrep | */2 * * * * | 2026-01-01 00:02, 2026-01-01 00:04
    setsid -f /bin/sh -c 'pgrep -f worker.py || nohup python3 /srv/worker.py &' >/dev/null 2>&1
3 3 * * * R CMD BATCH /srv/r/model.R
    r-cmd | 3 3 * * * | 2026-01-01 03:03, 2026-01-02 03:03
6 6 * * 0-6 sudo -u www-data php /var/www/site/bin/console cache:clear
    console-cache-clear | 6 6 * * 0-6 | 2026-01-01 06:06, 2026-01-02 06:06
8 8 * * 5-7 /opt/weekend/starts
    starts | 8 8 * * 5-7 | 2026-01-02 08:08, 2026-01-03 08:08
0 10 * * * su - deploy -c "cap production deploy"
    su | 0 10 * * * | 2026-01-01 10:00, 2026-01-02 10:00
1 1 1 1 1 MAILTO=x printf '%s\n' done
    printf | 1 1 1 1 1 | 2026-01-01 01:01, 2026-01-05 01:01
    printf '%s\n' 's\n'"'"' done' | /bin/sh -c 'MAILTO=x printf '"'"''
0~59 3 * * * /opt/random/minute
    minute | H 3 * * * | -
*/90 * * * * /opt/long/step
    step | 0 * * * * | 2026-01-01 01:00, 2026-01-01 02:00
0 */48 * * * /opt/long/hours
    hours | 0 0 * * * | 2026-01-02 00:00, 2026-01-03 00:00
10-20/90,5 * * * * /opt/long/list
    list | 10,5 * * * * | 2026-01-01 00:05, 2026-01-01 00:10
~ ~ * * * /opt/random/anywhen
    anywhen | H H * * * | -
20 8~11 ~ * * /opt/random/hour-and-day
    hour-and-day | 20 H(8-11) H(1-31) * * | -
"""

# The files that Debian packages put into /etc, in our own words; behind each name its tasks.
PACKAGES = r"""
== e2fsprogs: e2scrub-all-cron e2scrub-all
30 3 * * 0 root test -e /run/systemd/system || SERVICE_MODE=1 /usr/lib/e2scrub_all_cron
10 3 * * * root test -e /run/systemd/system || SERVICE_MODE=1 /sbin/e2scrub_all -A -r
== cron: cron-hourly cron-daily cron-weekly cron-monthly
# /etc/crontab: the table of the whole system
# Unlike any other crontab, no command needs to be run after this file is edited.

SHELL=/bin/sh
# The default of PATH is enough
#PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin

# Example of a line:
# .---------------- minute (0 - 59)
# |  .------------- hour (0 - 23)
# |  |  .---------- day of month (1 - 31)
# |  |  |  .------- month (1 - 12) OR jan,feb ...
# |  |  |  |  .---- day of week (0 - 6)
# |  |  |  |  |
# *  *  *  *  * user-name command
17 *	* * *	root	cd / && run-parts --report /etc/cron.hourly
25 6	* * *	root	test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }
47 6	* * 7	root	test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.weekly; }
52 6	1 * *	root	test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.monthly; }
#
== anacron: invoke-rc-d-anacron
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin

30 7-23 * * *   root	[ -x /etc/init.d/anacron ] && if [ ! -d /run/systemd/system ]; then /usr/sbin/invoke-rc.d anacron start >/dev/null; fi
== mdadm: checkarray
#
# cron.d/mdadm -- checks of redundancy, once a month
#
# Checks all arrays on the first Sunday of the month.
57 0 * * 0 root if [ -x /usr/share/mdadm/checkarray ] && [ $(date +\%d) -le 7 ]; then /usr/share/mdadm/checkarray --cron --all --idle --quiet; fi
== sysstat: debian-sa1 debian-sa1-2
# sysstat's folders must be in the path.
PATH=/usr/lib/sysstat:/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin

# Activity reports each 10 minutes, each day
5-55/10 * * * * root command -v debian-sa1 > /dev/null && debian-sa1 1 1

# One more run at 23:59 to turn the statistics file
59 23 * * * root command -v debian-sa1 > /dev/null && debian-sa1 60 2
== php-common: sessionclean
# /etc/cron.d/php: removes session files that are older than their lifetime

# Look for old sessions each 30 minutes
09,39 *     * * *     root   [ -x /usr/lib/php/sessionclean ] && if [ ! -d /run/systemd/system ]; then /usr/lib/php/sessionclean; fi
== certbot: certbot
# /etc/cron.d/certbot: renewal of certificates
#
# Upstream asks for two tries a day.
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin

0 */12 * * * root test -x /usr/bin/certbot -a \! -d /run/systemd/system && perl -e 'sleep int(rand(43200))' && certbot -q renew --no-random-sleep-on-renew
== popularity-contest: popularity-contest
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin
13 7 * * *   root    test -x /etc/cron.daily/popularity-contest && /etc/cron.daily/popularity-contest --crond
== munin: munin-cron munin-limits chown-munin-munin
#
# Settings of munin's cron
#
MAILTO=root

*/5 * * * *     munin if [ -x /usr/bin/munin-cron ]; then /usr/bin/munin-cron; fi
14 10 * * *     munin if [ -x /usr/share/munin/munin-limits ]; then /usr/share/munin/munin-limits --force --contact nagios; fi
@reboot         root  if [ -d "/var/cache/munin" ]; then /bin/chown munin:munin /var/cache/munin; fi
== atop: systemctl-restart
PATH=/bin:/usr/bin:/sbin:/usr/sbin

# begin a new log at midnight
0 0 * * * root if [ -d "/run/systemd/system" ]; then systemctl restart atop; else /usr/share/atop/atop.daily\&; fi
== zfsutils-linux: trim scrub
PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin

# TRIM on the first Sunday of each month.
24 0 1-7 * * root if [ $(date +\%w) -eq 0 ] && [ -x /usr/lib/zfs-linux/trim ]; then /usr/lib/zfs-linux/trim; fi

# Scrub on the second Sunday of each month.
24 0 8-14 * * root if [ $(date +\%w) -eq 0 ] && [ -x /usr/lib/zfs-linux/scrub ]; then /usr/lib/zfs-linux/scrub; fi
== ntpsec: rotate-stats
53 * * * * root [ -x /usr/lib/ntp/rotate-stats ] && /usr/lib/ntp/rotate-stats
== postgresql: pg-dumpall
# Dump all databases each night
15 1 * * * postgres pg_dumpall --clean | gzip -c > /var/backups/postgresql/$(date +\%a).sql.gz
== logrotate: logrotate
SHELL=/bin/sh
MAILTO=""
@hourly root test -x /usr/sbin/logrotate && /usr/sbin/logrotate /etc/logrotate.conf
== clamav-freshclam: freshclam
47 * * * * clamav [ -x /usr/bin/freshclam ] && /usr/bin/freshclam --quiet >/dev/null
== mailman: checkdbs mailpasswds
# At 8am every day, mail reminders to admins of pending requests.
0 8 * * * list [ -x /usr/lib/mailman/cron/checkdbs ] && /usr/lib/mailman/cron/checkdbs
# At 5am on the first of each month, mail out password reminders.
0 5 1 * * list [ -x /usr/lib/mailman/cron/mailpasswds ] && /usr/lib/mailman/cron/mailpasswds
"""  # noqa: E501
FILES = dict(re.findall(r"^== (\S+): .*\n((?:(?!== ).*\n)*)", PACKAGES, re.MULTILINE))
NAMES = {name: names.split() for name, names in re.findall("== (.*?): (.*)", PACKAGES)}


def corpus() -> list[tuple[str, ...]]:
    """Return the rows: line, name, schedule, ticks, command."""
    rows: list[list[str]] = []
    for line in CORPUS.strip("\n").split("\n"):
        if not line.startswith(" "):
            rows.append([line])
        else:
            rows[-1] += line.strip().split(" | ") if len(rows[-1]) == 1 else [line.strip()]
    lines = (row[0].split(None, 1 if row[0].startswith("@") else 5)[-1] for row in rows)
    return [(*row, line)[:5] for row, line in zip(rows, lines, strict=True)]


def load(source: str) -> list[hk.Task]:
    """Return the tasks of a source, with the host's zone taken to be UTC."""
    values: dict[str, object] = {}
    exec(source.replace('timezone="local"', 'timezone="UTC"'), values)
    return [value for value in values.values() if isinstance(value, hk.Task)]


def only(crontab: str, *, system: bool = False, user: str = "root") -> hk.Task:
    """Return the only task of a crontab that is adopted whole."""
    adopted = hk.Adoption(crontab, system=system, user=user)
    assert adopted.left_out == {}
    (task,) = load(adopted.source)
    return task


def reasons(crontab: str, *, system: bool = False) -> dict[int, str]:
    return hk.Adoption(crontab, system=system).left_out


def calls(source: str) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]


@pytest.mark.parametrize(("line", "name", "schedule", "ticks", "command"), corpus())
def test_a_line_becomes_a_task_with_the_ticks_that_cron_gives_it(
    line: str, name: str, schedule: str, ticks: str, command: str
) -> None:
    task = only(line)
    assert (task.name, task.command) == (name, command)
    assert (task.schedule or "at startup") == schedule
    assert bool(task.startup) is (schedule == "at startup")
    if ticks != "-":
        trigger = hk.CronTrigger(str(task.schedule))
        found = trigger.following(datetime(2026, 1, 1, tzinfo=timezone.utc), 2)
        assert ", ".join(f"{tick:%Y-%m-%d %H:%M}" for tick in found) == ticks


def test_the_corpus_has_sixty_lines() -> None:
    assert len({row[0] for row in corpus()}) >= 60


@pytest.mark.parametrize("line", [row[0] for row in corpus() if row[3] != "-"])
def test_a_year_of_ticks_is_the_year_that_a_walk_by_the_minute_finds(line: str) -> None:
    fields = hk.ALIASES.get(line.split()[0], " ".join(line.lstrip("-").split()[:5]))
    cron, trigger = cron_oracle.parse(fields), hk.CronTrigger(str(only(line).schedule))
    tick = datetime(2026, 1, 1, tzinfo=timezone.utc)
    for _ in range(50):
        following = trigger.next_after(tick)
        assert following is not None
        if following.year > 2026:
            break
        assert cron.names(following.replace(tzinfo=None))
        between = (following - tick).total_seconds() / 60
        minutes = [tick.timestamp() + 60 * n for n in range(1, min(int(between), 3000))]
        walls = [datetime.fromtimestamp(m, timezone.utc).replace(tzinfo=None) for m in minutes]
        assert not any(map(cron.names, walls))
        tick = following


@pytest.mark.parametrize("package", FILES)
def test_the_crontab_of_a_package_is_adopted_whole(package: str) -> None:
    adopted = hk.Adoption(FILES[package], system=True, name=package)
    assert adopted.left_out == {}
    assert adopted.tasks == NAMES[package]
    tasks = load(adopted.source)
    assert [task.name for task in tasks] == adopted.tasks
    if "root " in FILES[package]:
        assert hk.Adoption(FILES[package], name=package).source == adopted.source, (
            "it is known by its root"
        )


def test_a_comment_above_a_line_is_its_description_and_column_heads_are_not() -> None:
    (first, second) = load(hk.Adoption(FILES["mailman"], system=True).source)
    assert first.description == "At 8am every day, mail reminders to admins of pending requests."
    assert second.description == "At 5am on the first of each month, mail out password reminders."
    adopted = hk.Adoption(FILES["cron"], name="crontab")
    assert [task.description for task in load(adopted.source)] == [""] * 4
    assert "# |  |  |  .------- month (1 - 12) OR jan,feb ...\n" in adopted.source
    assert (
        "# PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin\n" in adopted.source
    )


@pytest.mark.parametrize(
    "comments",
    [
        ["# ---- backups ----", "# Save all."],
        ["#", "# Save all.", "#"],
        ["##########", "# Save all.", "##########"],
        ["# m h  dom mon dow   command", "# Save all."],
    ],
)
def test_a_ruler_or_head_above_a_description_does_not_hide_it(comments: list[str]) -> None:
    assert only("\n".join([*comments, "0 6 * * * /bin/save"])).description == "Save all."


def test_a_step_that_cron_reads_as_one_number_is_told() -> None:
    source = hk.Adoption("*/90 * * * * x\n0~59 1 * * * y\n0  1 * * * z\n", system=False).source
    assert "# In the crontab: */90 * * * *\nx_task = Task(" in source
    assert "# In the crontab: 0~59 1 * * *\ny_task = Task(" in source
    assert source.count("In the crontab") == 2


def test_a_byte_order_mark_is_dropped() -> None:
    assert only("\ufeff0 6 * * * /bin/new\n").name == "new"


BACKGROUND = {
    "prog &": True,
    "a; b && c &": True,
    "prog >x 2>&1&": True,
    "(a & wait) &": True,
    "prog & # watch": True,
    "prog & echo $! > pid": False,
    "(prog &)": False,
    "a & b & wait": None,
    "a && b": None,
    "a >& x 2>&1 &> y": None,
    "echo 'a &' \"b & c\" \\&": None,
    "a | b # & c": None,
}


@pytest.mark.parametrize("line", BACKGROUND)
def test_what_a_line_starts_in_the_background_lives_on_or_is_told(line: str) -> None:
    source = hk.Adoption(f"@daily {line}\n", system=False).source
    (task,) = load(source)
    assert str(task.command).startswith("setsid -f /bin/sh -c ") is (BACKGROUND[line] is True)
    assert ("# It goes on when its run is over" in source) is (BACKGROUND[line] is True)
    assert ("# Unlike with cron, what & starts" in source) is (BACKGROUND[line] is False)


def test_a_line_in_the_background_keeps_its_shell_its_input_and_its_user() -> None:
    task = only("SHELL=/bin/bash\n@daily cat > x &%in\n")
    started = "setsid -f /bin/bash -c 'cat > x &' >/dev/null 2>&1"
    assert task.command == f"printf '%s\\n' in | {started}"
    task = only("0 1 * * * daemon prog &\n", system=True)
    assert list(task.command or ())[-1] == "setsid -f /bin/sh -c 'prog &' >/dev/null 2>&1"


def test_a_line_that_is_switched_off_stays_a_comment() -> None:
    adopted = hk.Adoption(
        "#0 5 * * * /bin/old\n# Two\n# lines.\n0 6 * * * /bin/new\n", system=False
    )
    assert "# 0 5 * * * /bin/old\n" in adopted.source
    (task,) = load(adopted.source)
    assert (task.name, task.description) == ("new", "")
    assert only("# Of a variable.\nX=1\n0 6 * * * /bin/new\n").description == ""
    assert only("# Two\n# lines.\n0 6 * * * /bin/new\n").description == "Two lines."


def test_names_are_unique_and_those_of_tasks() -> None:
    lines = [
        "/opt/x.sh",
        "/opt/x.py",
        "x 2",
        "/opt/x-2",
        "7z a b",
        "[ -x a ]",
        "./",
        "import",
        "'é'",
    ]
    lines += ["/usr/bin/" + "y" * 200, "as-user", "/srv/task", "path"]
    tasks = load(hk.Adoption("".join(f"@daily {line}\n" for line in lines), system=False).source)
    names = [task.name for task in tasks]
    assert len(set(names)) == len(tasks) == len(lines)
    assert names[:5] == ["x", "x-2", "x-3", "x-2-2", "run-7z-a"]
    assert [task.command for task in tasks] == lines


VARIABLES = {
    "A=b": ("A", "b"),
    "A = b c  ": ("A", "b c"),
    'A="  b "': ("A", "  b "),
    "A='b\"c'": ("A", 'b"c'),
    'A=b"c"': ("A", 'b"c"'),
    '"A"=b': ("A", "b"),
    "'A b' = c": ("A b", "c"),
    "A=": ("A", ""),
    'A=""': ("A", ""),
    "PATH=$PATH:/opt/bin": ("PATH", "$PATH:/opt/bin"),
    "A=b # no comment": ("A", "b # no comment"),
    "A=b=c": ("A", "b=c"),
    "A=50%": ("A", "50%"),
}


@pytest.mark.parametrize("line", VARIABLES)
def test_a_variable_is_read_as_cron_reads_it(line: str) -> None:
    name, value = VARIABLES[line]
    assert only(f"{line}\n@daily /bin/x\n").env == {name: value}


@pytest.mark.parametrize("line", ['A="b" c', "A B=c", "=b", "A"])
def test_what_cron_takes_for_no_variable_is_left_out(line: str) -> None:
    assert list(reasons(f"{line}\n@daily /bin/x\n")) == [1]


def test_a_variable_counts_for_the_lines_below_it() -> None:
    crontab = "@daily /bin/a\nX=1\nY=2\n@daily /bin/b\nX=3\n@daily /bin/c\nZ=unused\n"
    a, b, c = load(hk.Adoption(crontab, system=False).source)
    assert (a.env, b.env, c.env) == (None, {"X": "1", "Y": "2"}, {"X": "3", "Y": "2"})


def test_a_shell_other_than_sh_runs_the_line() -> None:
    task = only("SHELL=/bin/bash\n@daily echo {1..3}\n")
    assert task.command == ["/bin/bash", "-c", "echo {1..3}"]
    assert only("SHELL=/bin/sh\n@daily echo 1\n").command == "echo 1"
    fed = only("SHELL=/bin/bash\n@daily cat%it's\n").command
    assert fed == """printf '%s\\n' 'it'"'"'s' | /bin/bash -c cat"""


def test_commands_start_in_the_home_folder_as_those_of_cron_do() -> None:
    assert only("@daily ./x\n").cwd == Path.home()
    assert only("HOME=/srv/app\n@daily ./x\n").cwd == "/srv/app"


def test_the_zone_is_the_hosts_unless_cron_tz_says_another() -> None:
    crontab = (
        "@daily a\nCRON_TZ=Asia/Tokyo\n@daily b\nTZ=Europe/Oslo\n@daily c\nCRON_TZ=\n@daily d\n"
    )
    adopted = hk.Adoption(crontab, system=False)
    zones = [
        keyword.value.value
        for call in calls(adopted.source)
        for keyword in call.keywords
        if keyword.arg == "timezone" and isinstance(keyword.value, ast.Constant)
    ]
    assert sorted(map(str, zones)) == ["Asia/Tokyo", "Asia/Tokyo", "local", "local"]
    assert load(adopted.source)[2].env == {"TZ": "Europe/Oslo"}, "of the command, as in cron"
    wrong = reasons("CRON_TZ=Nowhere\n@daily a\n@reboot c\nCRON_TZ=UTC\n@daily b\n")
    assert list(wrong) == [2], "a start has no zone"
    assert "Nowhere" in wrong[2]


def test_mailto_names_what_takes_its_place() -> None:
    source = hk.Adoption("MAILTO=ops@example.com\nMAILFROM=x\n@daily a\n", system=False).source
    (line,) = [line for line in source.splitlines() if "ops@example.com" in line]
    assert line.startswith("# ")
    assert "--on-failure" in line
    assert "on_finish" in line
    assert load(source)[0].env is None
    assert "on-failure" not in hk.Adoption('MAILTO=""\n@daily a\n', system=False).source


def test_the_file_says_once_what_cron_does_otherwise() -> None:
    source = hk.Adoption("@daily a\n@daily b\n@reboot c\n", system=False).source
    assert source.count("grace=1") == 1
    assert "# At each start of the scheduler, not of the host.\nc_task = Task(" in source


def test_a_system_crontab_is_known_by_its_users() -> None:
    system = "0 1 * * * www-data-of-another-host /bin/a\n0 2 * * * root /bin/b\n"
    assert hk.Adoption(system).system
    assert not hk.Adoption("0 1 * * * php a.php\n0 2 * * * /bin/root b\n").system
    assert hk.Adoption("0 1 * * * daemon /bin/a\n").system
    assert not hk.Adoption("0 1 * * * daemon --all\n").system, "a command with an option"
    assert not hk.Adoption("0 1 * * * daemon\n").system
    assert not hk.Adoption("0 1 * * * daemon /bin/a\n", system=False).system


def test_other_users_tasks_start_with_runuser_and_ones_own_do_not() -> None:
    task = only("0 1 * * * daemon echo 'a'%b\n", system=True)
    assert isinstance(task.command, list)
    assert task.command[:4] == ["/sbin/runuser", "-u", "daemon", "--"]
    assert task.cwd is None, "that user's home folder, which runuser finds"
    assert only("0 1 * * * daemon echo a\n", system=True, user="daemon").command == "echo a"
    assert list(reasons("0 1 * * * /bin/a\n0 1 * * * root\n@daily x-y -z\n", system=True)) == [
        1,
        2,
        3,
    ]


LEFT_OUT = {
    "60 * * * * x": "minute 60",
    "5/15 * * * * x": "write 5-59/15",
    "0 1/2,7 * * * x": "write 1-23/2",
    "* * * * *": "neither",
    "* * * * * * x": "neither",
    "* * 0 * * x": "day of month 0",
    "@every_minute x": "@every_minute",
    "@600 x": "@600",
    "0 0 30 2 * x": "never comes",
    "1 5 cron.daily nice run-parts /etc/cron.daily": "cron.daily",
    "@daily %only input": "neither a shell line",
    "RANDOM_DELAY=45": "write H",
    "rm -rf /": "neither",
}


@pytest.mark.parametrize("line", LEFT_OUT)
def test_what_cannot_be_said_is_a_comment_with_the_reason(line: str) -> None:
    adopted = hk.Adoption(f"@daily a\n{line}\n@daily b\n", system=False)
    assert adopted.tasks == ["a", "b"]
    assert LEFT_OUT[line] in adopted.left_out[2]
    assert f"# Left out: {line}\n# {adopted.left_out[2]}\n" in adopted.source
    assert hk.Adoption(f"{line}\n", system=False).tasks == []
    assert not adopted.left_out[2].startswith("Task ")


NASTY = [
    "echo \"it's\" '\"' \\ \\\\ \\n \t",
    "echo \x1b[31m\x0c\x0b\x85\u2028\u202e\xa0\x7f",
    "echo \udcff\udc80 caf\u00e9 \u65e5\u672c",
    '"""; import os; os.system("id") #',
    "'''\\''' {0} {x!r} f\"\" $(id) `id`",
    "x" * 3000,
    "# only a comment",
    "\\",
]
HOSTILE = [
    "# -*- coding: utf-7 -*-",
    "#coding=utf-16",
    '# """ \' \\ \udcff \x00 \r \x0c \u2028 import os',
    "# fmt: off",
    'A\'"""=x"y\'z\\\x01',
    'MAILTO=a\x0b\x0c\r\u2029import os"""',
    "CRON_TZ=../../etc/passwd\x00",
    "@daily no-such-zone",
    "CRON_TZ=",
    "@daily cat%\x00",
    "* * * * * nul\x00",
    '0 0 "*" * * x',
    "9" * 5000 + " * * * * x",
    "*/" + "9" * 5000 + " * * * * x",
    "@" + "\\" * 9 + '" x',
]


def test_nothing_in_a_crontab_can_become_code() -> None:
    crontab = "".join(f"{line}\n" for line in [*HOSTILE, *(f"@daily {line}" for line in NASTY)])
    for name in ("crontab", '"""\n\\\udcff', "# coding: utf-7"):
        source = hk.Adoption(crontab, system=False, name=name).source
        tree = ast.parse(source.encode())
        assert {type(node) for node in tree.body} <= {ast.Expr, ast.ImportFrom, ast.Assign}
        names = {ast.unparse(call.func) for call in calls(source)}
        assert names == {"Task", "Path.home"}
        tasks = load(source)
        assert [task.command for task in tasks] == [line.strip(" \t\r") for line in NASTY]
        assert tasks[0].env == {'A\'"""': "x\"y'z\\\x01"}


def test_whatever_a_crontab_holds_its_file_loads_and_holds_the_tasks_it_names() -> None:
    chance = random.Random(11)
    parts = [
        *"#=A%\\\"' \t~{}()|&;>\n\x00\x85\udc80\u202e\u0301",
        "@daily ",
        "CRON_TZ=",
        "HOME=/x",
    ]
    parts += [
        "root ",
        "* * * * * ",
        "/2",
        "\nSHELL=/bin/bash\n",
        "$(",
        "import",
        "a",
        "b c",
        "\n# ",
    ]
    adopted_tasks = 0
    for _ in range(400):
        lines = ("".join(chance.choices(parts, k=chance.randint(0, 12))) for _ in range(4))
        starts = ("", "@daily ", "5 4 * * 1 root ", "0~9 * 1 * * daemon ")
        text = "\n".join(start + line for start, line in zip(starts, lines, strict=True))
        adopted = hk.Adoption(text, system=chance.choice([True, False, None]), user="daemon")
        assert [task.name for task in load(adopted.source)] == adopted.tasks
        adopted_tasks += len(adopted.tasks)
    assert adopted_tasks > 300


def test_a_crontab_with_the_line_ends_of_windows_is_read() -> None:
    task = only("A=b\r\n\r\n0 1 * * * x y\r\n")
    assert (task.command, task.env) == ("x y", {"A": "b"})
    assert only("  7\t7 * *\t*   /opt/blanks/around   \n").schedule == "7 7 * * *"


@pytest.mark.parametrize("width", [79, 88, 120])
def test_the_file_is_formatted_as_ruff_leaves_it(width: int) -> None:
    texts = list(FILES.values())
    texts += ["\n".join(row[0] for row in corpus()), "".join(f"@daily {x}\n" for x in NASTY)]
    texts += [
        "\n".join([*HOSTILE, "@daily x"]).replace("# fmt: off", ""),
        "\n\n#a\n#\n\n#b\nX=1\n@daily x",
    ]
    texts += ["SHELL=/bin/bash\nHOME=/x\n@daily a\n\n\nHOME=/y\n@daily daemon b c\n#end"]
    for text in texts:
        for system in (True, False):
            source = hk.Adoption(text, system=system).source
            command = [Path(sys.executable).with_name("ruff"), "format", "--isolated", "-"]
            done = subprocess.run(
                [*command, f"--line-length={width}"],
                input=source.encode(),
                capture_output=True,
                check=True,
            )
            assert done.stdout.decode() == source


def cron_would_run(command: str) -> str:
    """Return what a command prints when cron runs it: do_command.c, told again."""
    line, stdin, feeding, escaped = "", "", False, False
    for letter in command:
        if letter == "%" and not escaped:
            stdin, feeding = stdin + "\n" * feeding, True
        else:
            if escaped and letter == "%":
                line, stdin = (line, stdin[:-1]) if feeding else (line[:-1], stdin)
            line, stdin = (line, stdin + letter) if feeding else (line + letter, stdin)
        # In what is fed, each backslash escapes anew.
        escaped = letter == "\\" and (feeding or not escaped)
    stdin += "\n" if stdin and not stdin.endswith("\n") else ""
    done = subprocess.run(
        ["/bin/sh", "-c", line], input=stdin.encode(), capture_output=True, check=False
    )
    return done.stdout.decode()


def test_percent_signs_and_quotes_reach_the_shell_as_from_cron() -> None:
    chance = random.Random(18)
    parts = [
        "a",
        " ",
        "'",
        '"',
        "\\",
        "%",
        "\\%",
        "$HOME",
        "$(echo b)",
        "-n",
        "*",
        "#",
        "\\\\",
        "c d",
    ]
    compared = 0
    for _ in range(120):
        words = "".join(chance.choices(parts, k=chance.randint(1, 9)))
        command = chance.choice(
            [f"cat%{words}", f"printf '[%s]' {words}; cat", f"{{ cat; }}{words}"]
        )
        command = command.replace("'[%s]'", "'[\\%s]'")
        expected = cron_would_run(command.strip(" "))
        task = only(f"@daily {command}")
        done = subprocess.run(
            ["/bin/sh", "-c", str(task.command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert done.stdout.decode() == expected, command
        compared += bool(expected)
    assert compared > 60


def housekeeper(
    folder: Path, *arguments: str, stdin: str = "", code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder; the text goes to its standard input."""
    variables = environment(HOUSEKEEPER_LEDGER=f"sqlite:///{folder}/ledger.db", HOME=str(folder))
    done = subprocess.run(
        [sys.executable, str(FILE), *arguments],
        input=stdin,
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def in_utc(file: Path) -> None:
    """Let a file be loaded where the zone's name "local" is not known."""
    try:
        hk.zone_named("local")
    except hk.ConfigurationError:
        file.write_text(file.read_text().replace('timezone="local"', 'timezone="UTC"'))


def test_what_is_adopted_passes_check_and_runs(tmp_path: Path) -> None:
    crontab = r"""
        GREETING="it's  50%"
        # Writes what it was given.
        0 5 * * * printf '\%s|' "$GREETING" 'a "b"' \\x \$HOME > one; pwd >> one
        */10 * * * * tee ./two%first%%third \% "line"% > never
        SHELL=/bin/bash
        @reboot echo {1..3} "$0" > three
        0 6 * * * exit 7
        """
    (tmp_path / "mine.tab").write_text(textwrap.dedent(crontab))
    done = housekeeper(tmp_path, "adopt", "mine.tab", "--into", "tasks")
    assert (done.stdout, done.stderr) == ("", "tasks/mine.py: 4 tasks, 0 lines left out\n")
    in_utc(tmp_path / "tasks/mine.py")
    checked = housekeeper(tmp_path, "--tasks", "tasks", "check").stdout
    assert "4 tasks: echo, exit, printf, tee" in checked
    assert "all is well" in checked
    for name in ("printf", "tee", "echo"):
        housekeeper(tmp_path, "--tasks", "tasks", "run", name)
    assert (tmp_path / "one").read_text() == f"""it's  50%|a "b"|\\x|$HOME|{tmp_path}\n"""
    assert (tmp_path / "two").read_text() == 'first\n\nthird % "line"\n > never\n'
    assert (tmp_path / "three").read_text() == "1 2 3 /bin/bash\n"
    failed = housekeeper(tmp_path, "--tasks", "tasks", "run", "exit", code=1)
    assert "exited with 7" in failed.stderr + failed.stdout


@pytest.mark.skipif(not shutil.which("setsid"), reason="needs setsid of util-linux")
@pytest.mark.parametrize("start", ["sleep 33 &", "nohup sleep 33 >log 2>&1 &"])
def test_what_an_adopted_line_starts_in_the_background_lives_on(
    tmp_path: Path, start: str
) -> None:
    crontab = f"0 5 * * * {{ echo $$ > pid; exec {start.removesuffix(' &')}; }} &\n"
    housekeeper(tmp_path, "adopt", "-", "--into", "tasks", stdin=crontab)
    in_utc(tmp_path / "tasks/crontab.py")
    checked = housekeeper(tmp_path, "--tasks", "tasks", "check").stdout
    assert "all is well" in checked
    (name,) = re.findall("1 task: (.*)", checked)
    done = housekeeper(tmp_path, "--tasks", "tasks", "run", name)
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    groups = {os.getpgid(pid): pid for pid in sleepers(tmp_path)}
    try:
        assert len(groups) == 1, done.stdout + done.stderr
    finally:
        for group in groups:
            os.killpg(group, signal.SIGKILL)


def sleepers(folder: Path) -> list[int]:
    """Return the processes that run in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == folder:
                found.append(int(process.name))
    return found


def test_two_crontabs_of_a_folder_share_no_names(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    code = "from housekeeper import task\n\n\n@task()\ndef save_all():\n    pass\n"
    (tmp_path / "tasks/own.py").write_text(code)
    (tmp_path / "tasks/broken.py").write_text("def (:\n")
    for name in ("one.tab", "two.tab"):
        (tmp_path / name).write_text("0 5 * * * /opt/backup\n0 6 * * * save-all\n")
        housekeeper(tmp_path, "adopt", name, "--into", "tasks")
        in_utc(tmp_path / f"tasks/{name[:3]}.py")
    (tmp_path / "tasks/broken.py").unlink()
    checked = housekeeper(tmp_path, "--tasks", "tasks", "check").stdout
    assert "5 tasks: backup, backup-2, save-all, save-all-2, save-all-3" in checked
    assert "all is well" in checked


@pytest.mark.skipif(not shutil.which("run-parts"), reason="needs Debian's run-parts")
def test_a_crontab_of_folders_for_run_parts_works(tmp_path: Path) -> None:
    for name in ("cron.hourly", "cron.daily"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hello").write_text(f"#!/bin/sh\necho hello from {name}\n")
        (tmp_path / name / "hello").chmod(0o755)
    user = pwd.getpwuid(os.geteuid()).pw_name
    crontab = f"""
        17 * * * * {user} cd / && run-parts --report {tmp_path}/cron.hourly
        25 6 * * * {user} test -x /no || {{ cd / && run-parts --report {tmp_path}/cron.daily; }}
        """
    crontab = textwrap.dedent(crontab)
    housekeeper(tmp_path, "adopt", "-", "--system", "--into", "tasks", stdin=crontab)
    in_utc(tmp_path / "tasks/crontab.py")
    assert "2 tasks" in housekeeper(tmp_path, "--tasks", "tasks", "check").stdout
    for name in ("cron.hourly", "cron.daily"):
        done = housekeeper(tmp_path, "--tasks", "tasks", "run", name.replace(".", "-"))
        assert f"hello from {name}" in done.stderr


@pytest.mark.skipif(not ROOT or not Path("/sbin/runuser").exists(), reason="needs root, runuser")
def test_root_runs_the_tasks_of_a_system_crontab_as_their_users(tmp_path: Path) -> None:
    line = """echo "$(id -un) $LOGNAME $HOME $PWD it's $0 $X"; cat"""
    crontab = f"PATH=/usr/bin:/bin\nX=50%\n1 2 * * * daemon {line}%in\n3 4 * * * root {line}\n"
    crontab += f"HOME=/tmp\nSHELL=/bin/bash\n5 6 * * * daemon {line}\n"
    housekeeper(tmp_path, "adopt", "-", "--into", "tasks", stdin=crontab)
    in_utc(tmp_path / "tasks/crontab.py")
    assert "all is well" in housekeeper(tmp_path, "--tasks", "tasks", "check").stdout
    home = os.path.expanduser("~daemon")
    for name, expected in {
        "cat": f"daemon daemon {home} {home} it's /bin/sh 50%\n",
        "cat-2": f"root {os.environ.get('LOGNAME', '')} {tmp_path} {tmp_path} it's /bin/sh 50%\n",
        "cat-3": "daemon daemon /tmp /tmp it's /bin/bash 50%\n",
    }.items():
        done = housekeeper(tmp_path, "--tasks", "tasks", "run", name)
        assert f"Task {name}: {expected}" in done.stderr
        assert ("Task cat: in\n" in done.stderr) is (name == "cat"), "its standard input"


def test_on_stdout_comes_the_file_and_on_stderr_what_became_of_each_line(tmp_path: Path) -> None:
    done = housekeeper(tmp_path, "adopt", "-", stdin="@daily a\n61 * * * * b\nc\n", code=1)
    assert [task.name for task in load(done.stdout)] == ["a"]
    *told, last = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in told] == ["line 2", "line 3"]
    assert last == "crontab: 1 task, 2 lines left out"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/crontab.py").write_text("mine")
    done = housekeeper(tmp_path, "adopt", "-", "--into", "tasks", stdin="@daily a\n", code=2)
    assert "tasks/crontab.py" in done.stderr
    assert "File exists" in done.stderr
    assert (tmp_path / "tasks/crontab.py").read_text() == "mine"


def test_a_crontab_without_a_line_to_adopt_writes_nothing_and_says_why(tmp_path: Path) -> None:
    done = housekeeper(tmp_path, "adopt", "-", "--into", "t", stdin="#\n61 * * * * b\n", code=2)
    assert "no line" in done.stderr
    assert "minute 61" in done.stderr
    assert not (tmp_path / "t").exists()
    many = housekeeper(tmp_path, "adopt", "-", stdin="no\n" * 50, code=2).stderr
    assert many.endswith("command; ...\n"), "the first three tell enough"
    assert "No such file" in housekeeper(tmp_path, "adopt", "nowhere", code=2).stderr


@pytest.mark.parametrize(("kind", "mode"), [("--user", 0o600), ("--system", 0o644)])
def test_the_file_is_as_private_as_the_crontab(tmp_path: Path, kind: str, mode: int) -> None:
    crontab = "KEY=secret\n0 1 * * * root /bin/a\n"
    old = os.umask(0)
    try:
        housekeeper(tmp_path, "adopt", "-", kind, "--into", "tasks", stdin=crontab)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "tasks/crontab.py").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "tasks").stat().st_mode) == 0o755


def test_system_and_user_overrule_the_guess_and_a_path_below_etc_is_the_systems(
    tmp_path: Path,
) -> None:
    crontab = "0 1 * * * root /bin/a\n"
    for kind, command in (("--user", "root /bin/a"), ("--system", "/bin/a")):
        done = housekeeper(tmp_path, "adopt", "-", kind, stdin=crontab)
        (task,) = load(done.stdout)
        assert str(task.command).endswith(command) or command in str(task.command)
        assert ("a user crontab" in done.stdout) is (kind == "--user")


def test_programs_get_json(tmp_path: Path) -> None:
    done = housekeeper(tmp_path, "adopt", "-", "--json", stdin="@daily a\nb\n", code=1)
    answer = json.loads(done.stdout)
    assert answer["tasks"] == ["a"]
    assert list(answer["left_out"]) == ["2"]
    assert answer["file"] is None
    assert [task.name for task in load(answer["source"])] == ["a"]
