"""An application that forks while its threads sign: fork.py MODULE PIN

Each child signs with its parent's sessions and key handle, without C_Initialize, while the parent goes on.
"""

import ctypes as c
import os
import signal
import sys
import threading
import time
import warnings

ULONG, BYTES = c.c_ulong, c.c_char_p
CKF_SERIAL, CKF_RW, CKU_USER = 4, 2, 1
CKF_SIGN, CKF_VERIFY = 0x800, 0x2000
CKM_EC_KEY_PAIR_GEN, CKM_ECDSA_SHA256 = 0x1040, 0x1044
CKA_TOKEN, CKA_SIGN, CKA_VERIFY, CKA_EC_PARAMS = 0x1, 0x108, 0x10A, 0x180
P256 = bytes.fromhex("06082a8648ce3d030107")
THREADS, FORKS, EACH = 8, 25, 20

# Forking with threads is what this program is for.
warnings.filterwarnings("ignore", category=DeprecationWarning)


class Mechanism(c.Structure):
    _fields_ = [("mechanism", ULONG), ("parameter", c.c_void_p), ("length", ULONG)]


class Attribute(c.Structure):
    _fields_ = [("type", ULONG), ("value", BYTES), ("length", ULONG)]


module = c.CDLL(sys.argv[1])
pin = sys.argv[2].encode()


class Failure(Exception):
    pass


def call(name, *arguments):
    function = getattr(module, name)
    function.restype = ULONG
    rv = function(*arguments)
    if rv != 0:
        raise Failure(f"{name}: {rv:#x} in process {os.getpid()}")


def open_session():
    session = ULONG()
    call("C_OpenSession", slot, ULONG(CKF_SERIAL | CKF_RW), None, None, c.byref(session))
    return session


def template(**values):
    rows = [Attribute(globals()[name], value, len(value)) for name, value in values.items()]
    return (Attribute * len(rows))(*rows), ULONG(len(rows))


def generate(session, token):
    public, private = ULONG(), ULONG()
    call(
        "C_GenerateKeyPair", session, c.byref(Mechanism(CKM_EC_KEY_PAIR_GEN, None, 0)),
        *template(CKA_TOKEN=token, CKA_VERIFY=b"\1", CKA_EC_PARAMS=P256),
        *template(CKA_TOKEN=token, CKA_SIGN=b"\1"),
        c.byref(public), c.byref(private),
    )
    return public, private


def sign(session, key, message):
    call("C_SignInit", session, c.byref(Mechanism(CKM_ECDSA_SHA256, None, 0)), key)
    signature, length = c.create_string_buffer(64), ULONG(64)
    call("C_Sign", session, message, ULONG(len(message)), signature, c.byref(length))
    return signature.raw[: length.value]


def verify(session, key, message, signature):
    call("C_VerifyInit", session, c.byref(Mechanism(CKM_ECDSA_SHA256, None, 0)), key)
    call("C_Verify", session, message, ULONG(len(message)), signature, ULONG(len(signature)))


def work(session, pair, name):
    public, private = pair
    message = name.encode()
    verify(session, public, message, sign(session, private, message))


call("C_Initialize", None)
slots, count = (ULONG * 1)(), ULONG(1)
call("C_GetSlotList", c.c_ubyte(1), slots, c.byref(count))
slot = ULONG(slots[0])
main = open_session()
call("C_Login", main, ULONG(CKU_USER), pin, ULONG(len(pin)))
pairs = [generate(main, b"\1"), generate(main, b"\0")]  # a token's, a session's
work(main, pairs[0], "before")

errors, stop = [], threading.Event()
done = [0] * THREADS


def busy(number, session):
    try:
        while not stop.is_set():
            work(session, pairs[number % 2], f"thread {number}")
            done[number] += 1
    except Failure as failure:
        errors.append(str(failure))


def child(number):
    """Never returns."""
    signal.alarm(30)  # a child that hangs dies by it, and its parent sees that
    try:
        for turn in range(EACH):
            work(main, pairs[turn % 2], f"child {number}: {turn}")
        # A session that one of the parent's threads was using at the very moment, perhaps between two calls.
        call("C_SessionCancel", sessions[number % THREADS], ULONG(CKF_SIGN | CKF_VERIFY))
        work(sessions[number % THREADS], pairs[0], f"child {number}")
        if number % 5 == 0:
            call("C_Finalize", None)
        os._exit(0)
    except BaseException as failure:
        print(f"child {number}: {failure}", flush=True)
        os._exit(1)


sessions = [open_session() for _ in range(THREADS)]
threads = [threading.Thread(target=busy, args=pair, daemon=True) for pair in enumerate(sessions)]
for thread in threads:
    thread.start()
time.sleep(0.2)

children = []
for number in range(FORKS):
    pid = os.fork()
    if pid == 0:
        child(number)
    children.append(pid)
    work(main, pairs[0], f"parent {number}")
    if len(children) >= 4:
        errors += [f"a child ended with {status}" for _, status in [os.waitpid(children.pop(0), 0)] if status]
errors += [f"a child ended with {status}" for _, status in (os.waitpid(pid, 0) for pid in children) if status]
marks = list(done)
time.sleep(0.5)
stop.set()
for thread in threads:
    thread.join(20)
    if thread.is_alive():
        errors.append("a thread hangs")
if any(now <= mark for now, mark in zip(done, marks)):
    errors.append(f"a thread of the parent stopped signing: {marks}, then {done}")
work(main, pairs[1], "after")
call("C_Finalize", None)
print(f"{sum(done)} signatures by threads, {FORKS} children", *errors, sep="\n")
sys.exit(1 if errors else 0)
