"""Real processes for the tests of runs: forked from one that has imported fireworks, so that each starts at once."""

import json
import os
import subprocess
import sys

# Reads requests line by line. A child becomes the script. It ends as a Python program does if that is what is tested;
# otherwise without taking the interpreter apart, which after an import of torch takes longer than all the rest.
_NURSERY = """
import atexit, json, os, runpy, sys
import fireworks.extensions.experiment
from fireworks.extensions._experiment.environment import _packages
_packages()  # is remembered, so that no child looks them up
for line in sys.stdin:
    request = json.loads(line)
    if "wait" in request:
        print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), flush=True)
        continue
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    os.setpgid(0, 0)
    for number, name in enumerate(["stdin", "stdout", "stderr"]):
        os.dup2(os.open(request[name], os.O_RDONLY if number == 0 else os.O_WRONLY), number)
    os.chdir(request["folder"])
    sys.argv = [request["script"], *request["arguments"]]
    sys.orig_argv = [sys.executable, *sys.argv]
    sys.stdin = open(0)
    if request["to_the_end"]:
        runpy.run_path(request["script"], run_name="__main__")
        break
    code = 0
    try:
        runpy.run_path(request["script"], run_name="__main__")
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)
"""


class Nursery:
    """Starts scripts as processes of their own."""

    def __init__(self, folder):
        self._folder = folder
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", _NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self, script, *arguments, folder=None, to_the_end=False):
        """Run a script (a path or its text) in a folder; with `to_the_end` the interpreter ends in its own way."""
        self._count += 1
        place = self._folder / f"process_{self._count}"
        place.mkdir()
        if not os.path.isfile(script):
            (place / "script.py").write_text(script)
            script = place / "script.py"
        return Script(self, place, str(script), [str(each) for each in arguments], str(folder or place), to_the_end)

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


class Script:
    """A script that runs: what it prints can be read line by line."""

    def __init__(self, nursery, place, script, arguments, folder, to_the_end):
        self._nursery = nursery
        self._errors = place / "stderr"
        self._errors.touch()
        for name in ("stdin", "stdout"):
            os.mkfifo(place / name)
        self.pid = nursery.ask(
            script=script,
            arguments=arguments,
            folder=folder,
            to_the_end=to_the_end,
            stdin=str(place / "stdin"),
            stdout=str(place / "stdout"),
            stderr=str(self._errors),
        )
        self._stdin = (place / "stdin").open("w")
        self._stdout = (place / "stdout").open()

    def readline(self):
        """The next line that it prints; an error if it printed none and ended."""
        line = self._stdout.readline()
        assert line, self.stderr
        return line.strip()

    def say(self, line=""):
        self._stdin.write(line + "\n")
        self._stdin.flush()

    @property
    def stderr(self):
        return self._errors.read_text()

    def send(self, number):
        os.kill(self.pid, number)

    def wait(self):
        """Its exit code, minus the number of the signal that ended it."""
        self.rest = self._stdout.read()
        self._stdin.close()
        self._stdout.close()
        return self._nursery.ask(wait=self.pid)
