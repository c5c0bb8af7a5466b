"""The order of decoding ahead, without a device: streams and events are simulated, and whatever interleaving they allow, every use
must find its own weight in scratch memory."""

from __future__ import annotations

import random

import pytest

torch = pytest.importorskip("torch")

from wcodec.torch import _encode, _places, _scratch, _weight  # noqa: E402


class Device:
    """Queues of work that run when they like, as far as events let them."""

    def __init__(self):
        self.queues = {}
        self.memory = {}
        self.wrong = []

    def run(self, seed):
        """Runs everything, in some order."""
        chance, done = random.Random(seed), set()
        heads = dict.fromkeys(self.queues, 0)
        while ready := [
            name for name, queue in self.queues.items()
            if heads[name] < len(queue) and queue[heads[name]][0] <= done
        ]:  # fmt: skip
            name = chance.choice(ready)
            _, identity, work = self.queues[name][heads[name]]
            heads[name] += 1
            work()
            done.add(identity)
        assert all(heads[name] == len(queue) for name, queue in self.queues.items()), "streams wait for each other"


class Stream:
    def __init__(self, device):
        self.device = device
        self.cuda_stream = len(device.queues) + 1
        self.queue = device.queues.setdefault(self.cuda_stream, [])

    def add(self, work, after=()):
        identity = object()
        self.queue.append((set(after), identity, work))
        return identity

    def wait_stream(self, other):
        self.wait_event(type("Mark", (), {"mark": other.add(lambda: None)}))

    def wait_event(self, event):
        self.add(lambda: None, [event.mark])


class Event:
    mark = None

    def record(self, stream):
        self.mark = stream.add(lambda: None)


@pytest.fixture
def device(monkeypatch):
    made = Device()
    streams = []

    def stream(*_):
        streams.append(Stream(made))
        return streams[-1]

    main = stream()
    made.current = main
    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: made.current)
    monkeypatch.setattr(_scratch, "_current_handle", lambda _: made.current.cuda_stream)
    monkeypatch.setattr(_scratch.Pipeline, "_known_to", lambda *_: None)
    monkeypatch.setattr(_scratch, "_multiprocessors", lambda _: 0)
    monkeypatch.setattr(_weight.Weight, "resident", lambda self, _: self)
    monkeypatch.setattr(_weight.Weight, "check", lambda *_: None)

    class Cuda:
        @staticmethod
        def sparing(_):
            return Cuda

        @staticmethod
        def decode_rows(items, handle):
            def write():
                for weight, first, last, (address, size) in items:
                    for byte in range(address, address + size, 64):
                        made.memory[byte] = (weight.name, first)

            next(s for s in streams if s.cuda_stream == handle).add(write)

    made.pipeline = _scratch.Pipeline(torch.device("cpu"), Cuda, False)
    return made


def forward(device, weights, ends=True):
    """Uses weights one after the other; `ends` of these uses are told, or not."""
    for weight in weights:
        for use in weight.uses():
            view = device.pipeline.lease(weight, use)
            assert view.shape == use.shape and view.dtype == weight.dtype

            def read(weight=weight, use=use, address=view.data_ptr()):
                found = {device.memory.get(byte) for byte in range(address, address + use.bytes, 64)}
                if found != {(weight.name, use.first)}:
                    device.wrong.append((weight.name, use.first, found))

            device.current.add(read)
            if ends:
                device.pipeline.end()


@pytest.fixture(scope="module")
def weights():
    rows = [600, 64, 64, 512, 2048, 128, 1024, 96]
    made = _encode.encode({f"w{i}": torch.randn(n, 64).half() for i, n in enumerate(rows)}, slab_bytes=64 << 10)
    return [made[f"w{i}"] for i in range(len(rows))]


def passes(weights):
    """Forward passes that models make."""
    yield [weights] * 5
    yield [weights[:1]] * 4
    yield [weights[:3]] * 3 + [weights[3:]] * 3 + [weights] * 3
    # An encoder once, a decoder many times; a layer that is used twice; another branch every time.
    yield [weights[:4]] + [weights[4:]] * 6
    yield [[weights[0], weights[1], weights[0], weights[2]]] * 6
    yield [[weights[i % 8], weights[(3 * i) % 8], weights[5]] for i in range(30)]


@pytest.mark.parametrize("least", [0, 128 << 10, 8 << 20], ids=["small groups", "groups", "one group"])
@pytest.mark.parametrize("case", range(6))
@pytest.mark.parametrize("ends", [True, False, None], ids=["ends told", "not told", "some told"])
def test_every_use_finds_its_weight(device, weights, monkeypatch, least, case, ends):
    monkeypatch.setattr(_scratch, "_MIN_BYTES", least)
    for number, chosen in enumerate(list(passes(weights))[case]):
        forward(device, chosen, number % 3 == 0 if ends is None else ends)
        if number == 2:
            device.current = torch.cuda.Stream()
        if number == 3:
            device.pipeline.release()
    for seed in range(8):
        device.memory.clear()
        device.run(seed)
        assert not device.wrong, device.wrong[:3]


def test_places_that_are_decoded_at_a_time_do_not_meet():
    chance = random.Random(5)
    for _ in range(40):
        sizes = [chance.randint(1, 64) * 256 for _ in range(chance.randint(1, 40))]
        groups = [_places.Group() for _ in sizes]
        for made, size in zip(groups, sizes):
            made.size = size
        room = 2 * max(sizes)
        _places.place(groups, room)
        for number, made in enumerate(groups):
            assert made.start >= 0 and made.start + made.size <= room and -1 <= made.after < number
            for other in groups[made.after + 1 : number]:
                assert other.start + other.size <= made.start or made.start + made.size <= other.start


def test_it_decodes_ahead(device, weights, monkeypatch):
    monkeypatch.setattr(_scratch, "_MIN_BYTES", 0)
    for _ in range(3):
        forward(device, weights)
    pipeline = device.pipeline
    assert [use.weight() for use, _, begins in pipeline.order if use.first == 0] == weights
    assert len(pipeline.groups) > 2 and len(pipeline.stream.queue) > len(pipeline.groups)


def test_a_model_that_is_gone_is_not_kept(device):
    made = _encode.encode({f"w{i}": torch.randn(64, 64).half() for i in range(3)})
    gone = [made.pop(name) for name in list(made)]
    for _ in range(3):
        forward(device, gone)
    device.queues[device.current.cuda_stream].clear()
    uses = [use for use, *_ in device.pipeline.order]
    device.queues[device.pipeline.stream.cuda_stream].clear()
    del gone
    import gc

    gc.collect()
    assert all(use.weight() is None for use in uses)
