"""Steps N Gymnasium environments for `collimate`, which starts this file and speaks with it through pipes.

A frame is `[u32 length][u8 kind][payload]`, little-endian; the length counts the payload only. The parent asks, this
program answers each request with one frame, and numbers are as the processor has them:

    request                                        answer
    m  make: JSON (see `Worker`)                   H  [u8 protocol][u32 length of JSON][JSON][bounds of the boxes, f32]
    r  reset: [u8 with a seed?][u128 seed]         O  [observations N x O]
    s  step: [actions N x A, i64 or f32]           S  [observations N x O][rewards f64 N][terminated u8 N][truncated u8 N]
                                                      [final observations of the k environments that ended, k x O]
    k  keep how episodes begin from now on         K
    h  how the running episodes began              J  JSON: a list of texts
    p  replay: [u32 length of JSON][JSON][actions] O  [observations N x O]
    anything                                       E  JSON: what failed; nothing follows

An environment whose episode ends is reset within the same step: `observations` then holds the first one of the next
episode, and what the action led to stands among the final observations. Observations are f32, or u8 for images.
The end of the requests is the end of this program.
"""

import os
import sys

# What a library prints must not stand between the frames, and nobody else may read the requests. This comes before
# anything is imported that could do either
REQUESTS, ANSWERS = os.dup(0), os.dup(1)
os.dup2(2, 1)
_nothing = os.open(os.devnull, os.O_RDONLY)
os.dup2(_nothing, 0)
os.close(_nothing)

import ast
import faulthandler
import gc
import importlib
import json
import select
import signal
import threading
import time
import traceback

PROTOCOL = 1
HEADER = 5
OLDEST = (1, 0)
# Seconds for environments to close once the parent is gone
GRACE = 2.0
# Frames of a traceback that a message repeats
DEEPEST = 4
# f32 holds every whole number up to here
LARGEST_DISCRETE = 1 << 24


class Failure(Exception):
    """Something that the parent reports: what failed, and in which environment"""

    def __init__(self, kind, message, **more):
        super().__init__(message)
        self.about = {"kind": kind, "message": message, **more}


def describe(error):
    """An exception as its last line in a traceback"""
    return "".join(traceback.format_exception_only(type(error), error)).strip()


def places(error):
    """Where an exception came from, without what Gymnasium and this file have to do with it"""
    ours = ("<", os.path.dirname(getattr(sys.modules.get("gymnasium"), "__file__", "<")))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    text = "".join(traceback.format_list(frames[-DEEPEST:]))
    return [line for line in text.splitlines() if line.strip(" ^~")]


def watch_parent():
    """Ends this process, and what it started, soon after the parent closed the pipe, whatever the environments do"""
    poll = select.poll()
    poll.register(REQUESTS, 0)
    poll.poll()
    time.sleep(GRACE)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


class Pipe:
    """Frames in and out"""

    def __init__(self):
        self.buffer = bytearray(1 << 16)

    def receive(self):
        """The next request as (kind, payload), which is valid until the next call; None at the end"""
        view = memoryview(self.buffer)
        got = os.readv(REQUESTS, [view])
        if got == 0:
            return None
        while got < HEADER:
            got += self.more(view[got:])
        end = HEADER + int.from_bytes(view[:4], "little")
        if end > len(view):
            larger = bytearray(end)
            larger[:got] = view[:got]
            view.release()
            self.buffer = larger
            view = memoryview(larger)
        while got < end:
            got += self.more(view[got:end])
        return chr(view[4]), view[HEADER:end]

    @staticmethod
    def more(view):
        got = os.readv(REQUESTS, [view])
        if got == 0:
            raise SystemExit("the parent is gone")
        return got

    @staticmethod
    def send(frame):
        """A whole frame"""
        view = memoryview(frame)
        sent = os.write(ANSWERS, view)
        while sent < len(view):
            sent += os.write(ANSWERS, view[sent:])

    @classmethod
    def answer(cls, kind, payload=b""):
        cls.send(len(payload).to_bytes(4, "little") + kind.encode() + payload)


def import_gymnasium():
    try:
        import gymnasium
        import numpy
    except ModuleNotFoundError as error:
        if error.name in ("gymnasium", "numpy"):
            raise Failure("missing", f"has no module `{error.name}`") from error
        raise
    version = tuple(int(part) for part in gymnasium.__version__.split(".")[:2] if part.isdigit())
    if version < OLDEST:
        raise Failure("old", f"has Gymnasium {gymnasium.__version__}, and 1.0 or newer is needed")
    return gymnasium, numpy


def wrapper(text):
    """`Name`, `Name:key=value,...` of Gymnasium's own wrappers, or `module:Name...` of anyone's, as a function"""
    head, _, last = text.rpartition(":")
    path, arguments = (head, last) if "=" in last else (text, "")
    module, _, name = path.rpartition(":")

    def value(node):
        if isinstance(node, ast.Name):
            return {"true": True, "false": False, "null": None}.get(node.id, node.id)
        return ast.literal_eval(node)

    try:
        call = ast.parse(f"f({arguments})", mode="eval").body
        if call.args or not all(keyword.arg for keyword in call.keywords):
            raise ValueError("not all are named")
        keywords = {keyword.arg: value(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise Failure("wrapper", f"cannot read the arguments of the wrapper `{text}`: {error}") from error
    try:
        found = getattr(importlib.import_module(module or "gymnasium.wrappers"), name, None)
    except ModuleNotFoundError as error:
        raise Failure("wrapper", f"cannot import the wrapper `{text}`: {error}") from error
    if not callable(found):
        raise Failure("wrapper", f"there is no wrapper `{name}` in `{module or 'gymnasium.wrappers'}`")
    return lambda env: found(env, **keywords)


def make(gymnasium, request):
    """One environment with its wrappers"""
    spaces, wrappers = gymnasium.spaces, gymnasium.wrappers
    if request["id"].startswith("ALE/"):
        # Gymnasium no longer finds it by itself
        importlib.import_module("ale_py")
    env = gymnasium.make(request["id"], max_episode_steps=request["max_episode_steps"], **request["kwargs"])
    for text in request["wrappers"]:
        env = wrapper(text)(env)
    if request["frame_skip"] > 1:
        env = wrappers.MaxAndSkipObservation(env, skip=request["frame_skip"])
    if request["grayscale"]:
        env = wrappers.GrayscaleObservation(env)
    if request["resize"]:
        env = wrappers.ResizeObservation(env, (request["resize"], request["resize"]))
    if request["frame_stack"] > 1:
        env = wrappers.FrameStackObservation(env, request["frame_stack"])
    space = env.observation_space
    if not isinstance(space, (spaces.Box, spaces.Discrete)):
        if not space.is_np_flattenable:
            raise Failure("space", f"its observations are {space}, which has no fixed number of numbers")
        env = wrappers.FlattenObservation(env)
    return env


class Observations:
    """Where the observations of N environments stand in an answer"""

    def __init__(self, numpy, spaces, space):
        self.numpy = numpy
        self.shape, self.dtype, self.bounds = space.shape, numpy.dtype("f4"), b""
        if isinstance(space, spaces.Discrete):
            if space.n > LARGEST_DISCRETE:
                raise Failure("space", f"its observations are {space}, more states than a table holds")
            self.about = {"kind": "discrete", "n": int(space.n)}
            self.put = self.put_state(int(space.start))
            return
        is_image = space.dtype == numpy.uint8 and len(space.shape) > 1
        is_image = is_image and bool(space.low.min() == 0 and space.high.max() == 255)
        if is_image:
            self.dtype = numpy.dtype("u1")
        else:
            self.bounds = space.low.astype("f4").tobytes() + space.high.astype("f4").tobytes()
        self.about = {"kind": "box", "shape": list(space.shape), "image": is_image}
        self.put = self.put_image() if is_image else self.put_box()

    def size(self):
        """Bytes of one observation"""
        return int(self.numpy.prod(self.shape, dtype=int)) * self.dtype.itemsize

    def rows(self, frame, at, count):
        numbers = count * self.size() // self.dtype.itemsize
        return self.numpy.frombuffer(frame, self.dtype, numbers, at).reshape((count, *self.shape))

    # Functions that write observation `seen` as row `i`, each with what it needs at hand: they run at every step

    @staticmethod
    def put_state(start):
        def put(rows, i, seen):
            rows[i] = seen - start

        return put

    def put_box(self):
        ndarray, asarray, shape = self.numpy.ndarray, self.numpy.asarray, self.shape

        def put(rows, i, seen):
            if type(seen) is not ndarray or seen.shape != shape:
                seen = asarray(seen)
                # One of another shape might fill the row all the same
                if seen.shape != shape:
                    raise ValueError(f"an observation of the shape {seen.shape}, where its space has {shape}")
            rows[i] = seen

        return put

    def put_image(self):
        asarray, shape, dtype = self.numpy.asarray, self.shape, self.dtype

        def put(rows, i, seen):
            seen = asarray(seen)
            if seen.shape != shape or seen.dtype != dtype:
                found = f"of {seen.dtype} and the shape {seen.shape}"
                raise ValueError(f"an observation {found}, where its space has {dtype} and {shape}")
            rows[i] = seen

        return put


class Actions:
    """How the actions of N environments stand in a request"""

    def __init__(self, numpy, spaces, space):
        self.numpy = numpy
        self.start = 0
        if isinstance(space, spaces.Discrete):
            if space.n > LARGEST_DISCRETE:
                raise Failure("space", f"its actions are {space}, more than a network tells apart")
            self.dtype, self.shape, self.to, self.start = numpy.int64, (), numpy.int64, int(space.start)
            self.about, self.bounds = {"kind": "discrete", "n": int(space.n)}, b""
        elif isinstance(space, spaces.Box) and numpy.issubdtype(space.dtype, numpy.floating):
            self.dtype, self.shape, self.to = numpy.float32, space.shape, space.dtype
            self.about = {"kind": "box", "shape": list(space.shape), "image": False}
            self.bounds = space.low.astype("f4").tobytes() + space.high.astype("f4").tobytes()
        else:
            raise Failure("actions", f"its actions are {space}; an agent here takes `Discrete`, or a `Box` of floats")

    def read(self, payload):
        """All actions, in memory of their own: an environment may keep its action"""
        actions = self.numpy.frombuffer(payload, self.dtype).astype(self.to)
        if self.start:
            actions += self.start
        return actions.reshape((-1, *self.shape))


class Worker:
    """N environments; `request` holds id, kwargs, num_envs, max_episode_steps, and what stands around each of them"""

    def __init__(self, request):
        self.at = None
        gymnasium, numpy = import_gymnasium()
        try:
            self.envs = [make(gymnasium, request) for _ in range(request["num_envs"])]
        except gymnasium.error.Error as error:
            # These say in one sentence what is wrong with the request
            raise Failure("make", str(error)) from error
        except ModuleNotFoundError as error:
            raise Failure("import", str(error), places=places(error)) from error
        env, spaces = self.envs[0], gymnasium.spaces
        self.observations = Observations(numpy, spaces, env.observation_space)
        self.actions = Actions(numpy, spaces, env.action_space)
        self.steps = [env.step for env in self.envs]
        # How each running episode began, where someone wants to come back there
        self.beginnings = None

        n, size = len(self.envs), self.observations.size()
        ends = HEADER + n * size
        self.length = ends + 10 * n
        self.frame = bytearray(self.length + n * size)
        self.frame[4] = ord("S")
        self.seen = self.observations.rows(self.frame, HEADER, n)
        self.rewards = numpy.frombuffer(self.frame, numpy.float64, n, ends)
        self.terminated = numpy.frombuffer(self.frame, numpy.uint8, n, ends + 8 * n)
        self.truncated = numpy.frombuffer(self.frame, numpy.uint8, n, ends + 9 * n)
        self.final = self.observations.rows(self.frame, self.length, n)
        self.row = size

        about = env.spec
        self.hello = {
            "python": sys.version.split()[0],
            "gymnasium": gymnasium.__version__,
            "max_episode_steps": about and about.max_episode_steps,
            "reward_threshold": about and about.reward_threshold,
            "observation": self.observations.about,
            "action": self.actions.about,
        }

    def greet(self):
        text = json.dumps(self.hello).encode()
        bounds = self.observations.bounds + self.actions.bounds
        Pipe.answer("H", bytes([PROTOCOL]) + len(text).to_bytes(4, "little") + text + bounds)

    def begin(self, i, seed=None):
        """Starts an episode"""
        env = self.envs[i]
        if self.beginnings is not None:
            start = {"seed": seed} if seed is not None else {"state": env.unwrapped.np_random.bit_generator.state}
            self.beginnings[i] = json.dumps(start)
        seen, _ = env.reset(seed=seed)
        self.observations.put(self.seen, i, seen)

    def reset(self, payload):
        seed = int.from_bytes(payload[1:17], "little") if payload[0] else None
        for self.at in range(len(self.envs)):
            self.begin(self.at, None if seed is None else seed + self.at)
        self.show()

    def show(self):
        self.at = None
        Pipe.answer("O", self.seen.tobytes())

    def step(self, payload):
        actions = self.actions.read(payload)
        put, seen, rewards, finals = self.observations.put, self.seen, self.rewards, 0
        terminated, truncated = self.terminated, self.truncated
        i = 0
        try:
            for i, step in enumerate(self.steps):
                observation, reward, is_over, is_late, _ = step(actions[i])
                put(seen, i, observation)
                rewards[i] = reward
                terminated[i] = is_over
                truncated[i] = is_late
                if is_over or is_late:
                    self.final[finals] = seen[i]
                    finals += 1
                    self.begin(i)
        except Exception:
            self.at = i
            raise
        end = self.length + finals * self.row
        self.frame[:4] = (end - HEADER).to_bytes(4, "little")
        Pipe.send(memoryview(self.frame)[:end])

    def keep(self, _payload):
        """From the next reset on. Random numbers of a kind that no text can hold are refused at once"""
        for env in self.envs:
            try:
                json.dumps(env.unwrapped.np_random.bit_generator.state)
            except (AttributeError, TypeError) as error:
                raise Failure("history", f"the state of its random numbers cannot be kept: {describe(error)}") from error
        self.beginnings = [None] * len(self.envs)
        Pipe.answer("K")

    def history(self, _payload):
        Pipe.answer("J", json.dumps(self.beginnings).encode())

    def replay(self, payload):
        """Begins each episode as it began before, and does what was done"""
        end = 4 + int.from_bytes(payload[:4], "little")
        episodes, actions = json.loads(bytes(payload[4:end])), iter(self.actions.read(payload[end:]))
        for self.at, (start, steps) in enumerate(episodes):
            how = json.loads(start)
            if "state" in how:
                self.envs[self.at].unwrapped.np_random.bit_generator.state = how["state"]
            self.begin(self.at, how.get("seed"))
            for _ in range(steps):
                self.observations.put(self.seen, self.at, self.steps[self.at](next(actions))[0])
        self.show()

    def serve(self, pipe):
        served = {"r": self.reset, "s": self.step, "k": self.keep, "h": self.history, "p": self.replay}
        # What lives now lives as long as this program: looking through it again and again takes time
        gc.collect()
        gc.freeze()
        while (request := pipe.receive()) is not None:
            served[request[0]](request[1])
        for env in self.envs:
            env.close()


def main():
    faulthandler.enable()
    threading.Thread(target=watch_parent, daemon=True).start()
    pipe, worker = Pipe(), None
    try:
        request = pipe.receive()
        if request is None:
            return
        worker = Worker(json.loads(bytes(request[1])))
        worker.greet()
        worker.serve(pipe)
    except Failure as failure:
        Pipe.answer("E", json.dumps(failure.about).encode())
    except Exception as error:
        about = {"kind": "step" if worker else "raised", "message": describe(error), "places": places(error)}
        if worker and worker.at is not None:
            about["env"] = worker.at
        Pipe.answer("E", json.dumps(about).encode())


if __name__ == "__main__":
    main()
