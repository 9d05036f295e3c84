"""A file of reward functions that want more than to score, as a tenant would upload it."""

GREEDY = """
    import ctypes, os, signal, socket, subprocess, sys, tempfile, threading, time

    def zero(completions, **kwargs):
        return [0.0] * len(completions)

    def memory(completions, **kwargs):
        return [float(len(bytearray(2**40)))]

    def memory_by_and_by(completions, **kwargs):
        kept = []
        while True:
            kept.append(bytearray(2**24))

    def forks(completions, **kwargs):
        while True:
            os.fork()

    def command(completions, **kwargs):
        subprocess.run(["/bin/sh", "-c", "sleep 1000"])

    def loop(completions, **kwargs):
        while True:
            pass

    def kills_service(completions, **kwargs):
        os.kill(os.getppid(), signal.SIGKILL)

    def kills_everybody(completions, **kwargs):
        os.kill(-1, signal.SIGKILL)

    def connects(completions, **kwargs):
        socket.create_connection(("127.0.0.1", 80))

    def large_file(completions, **kwargs):
        with open("large", "wb") as file:
            while True:
                file.write(bytes(2**20))

    def many_files(completions, **kwargs):
        for number in range(10**9):
            with open(str(number), "wb") as file:
                file.truncate(2**20)
                file.write(bytes(2**20))

    def forged_answer(completions, **kwargs):
        for descriptor in range(3, 20):
            try:
                os.write(descriptor, b"\\xff\\xff\\xff\\xff so many bytes will come")
            except OSError:
                pass
        return [1.0]

    def answer_of_nobody(completions, **kwargs):
        body = b'{"status": "returned", "terms": "none"}'
        for descriptor in range(3, 20):
            try:
                os.write(descriptor, len(body).to_bytes(4, "big") + body)
            except OSError:
                pass
        return [1.0]

    def strange_names(completions, **kwargs):
        return {"\\ud800": [1.0]}

    def strange_error(completions, **kwargs):
        raise ValueError("\\ud800" + "x" * 10**6)

    def talks(completions, **kwargs):
        for _ in range(300):
            os.write(1, b"x" * 100_000 + bytes(range(256)))
        return [2.0]

    def deletes_itself(completions, **kwargs):
        os.unlink(__file__)
        return [3.0]

    def goes_on_later(completions, **kwargs):
        def count():
            while True:
                kwargs["trainer_state"]["counted"] = kwargs["trainer_state"].get("counted", 0) + 1
                time.sleep(0.001)
        global state
        state = kwargs["trainer_state"]
        threading.Thread(target=count, daemon=True).start()
        return [4.0]

    def counted(completions, **kwargs):
        return [float(state.get("counted", 0))]

    def attempts(completions, log_extra, kept, **kwargs):
        def answer(what):
            try:
                return str(what())
            except BaseException as error:
                return type(error).__name__
        def read(path):
            return lambda: open(path, "rb").read()
        libc = ctypes.CDLL(None, use_errno=True)
        log_extra("got", [{
            "user": [os.getuid(), os.geteuid(), os.getgid(), *os.getgroups()],
            "environment": dict(os.environ),
            "descriptors": [number for number in range(3, 100) if answer(lambda: os.fstat(number)) != "OSError"],
            "service": answer(read(f"/proc/{os.getppid()}/environ")),
            "first": answer(read("/proc/1/environ")),
            "shadow": answer(read("/etc/shadow")),
            "kept": answer(read(kept[0])),
            "folder": answer(lambda: os.listdir(os.path.dirname(kept[0]))),
            "elsewhere": answer(lambda: open(os.path.dirname(os.getcwd()) + "/evil", "w")),
            "attach": libc.ptrace(16, os.getppid(), 0, 0),
            "namespace": libc.unshare(0x10000000),
            "root": answer(lambda: os.setuid(0)) if os.getuid() else "PermissionError",
            "shared": answer(lambda: os.memfd_create("x")),
            "limits": answer(lambda: __import__("resource").prlimit(os.getppid(), 7, (3, 3))),
            "here": answer(lambda: tempfile.NamedTemporaryFile().write(b"x")),
            "pair": answer(lambda: len(socket.socketpair())),
        }])
        return [5.0]
"""
