"""Runs one scenario with the C++ client through its Python binding; ends with one line of JSON.

The contract is in tests/clients/README.md. What the binding hides (the queue of a send, committed
offsets, all of admin) is not tested here, nor are batches: this library sends one that servers
store as a single message.
"""

import argparse
import ctypes
import json
import os
import sys
import threading
import time
import traceback
import zlib

from rocketmq.client import Message, Producer, PullConsumer, PushConsumer, RecvMessage, SendStatus
from rocketmq.exceptions import ProducerSendSyncFailed, ffi_check
from rocketmq.ffi import MessageModel, dll

SIZES = [1, 100, 1000, 4095, 4096, 5000, 20_000]
TAGS = ["A", "B", "C"]
TEXT = "Grüße, 消息 = 😀"
QUEUES = 4
FACTS = {}
INSTANCES = iter(range(1_000_000))


def main():
    options = parse()
    begin = time.monotonic()
    error = None
    try:
        SCENARIOS[options.scenario](options)
    except BaseException as thrown:
        traceback.print_exc()
        error = repr(thrown)
    result = {"scenario": options.scenario, "ok": error is None}
    result["ms"] = int((time.monotonic() - begin) * 1000)
    result.update(FACTS)
    if error is not None:
        result["error"] = error
    try:
        print(json.dumps(result), flush=True)
    finally:
        # The library's threads and destructors do not end on their own every time.
        os._exit(0 if error is None else 1)


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=sorted(SCENARIOS))
    for name in ("--namesrv", "--topic", "--group"):
        parser.add_argument(name, required=True)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def mark(text):
    print("mark " + text, flush=True)


def check(holds, otherwise):
    if not holds:
        raise AssertionError(otherwise)


def same(expected, found, what):
    check(expected == found, f"{what}: expected {expected!r}, found {found!r}")


def until(seconds, what, holds):
    end = time.monotonic() + seconds
    while not holds():
        check(time.monotonic() < end, f"not within {seconds} s: {what()}")
        time.sleep(0.02)


# Messages


def body_of(seed, index, size):
    state = (seed * 0x9E3779B1 + index) & 0xFFFFFFFF
    body = bytearray(size)
    for at in range(size):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        body[at] = ord("a") + (state >> 24) % 26
    for at in range(50, size - 1, 100):
        body[at : at + 2] = "é".encode()
    return bytes(body)


def make(options, ident, index, size=None):
    body = body_of(options.seed, index, size or SIZES[index % len(SIZES)])
    message = Message(options.topic)
    message.set_body(body)
    message.set_tags(TAGS[index % len(TAGS)])
    message.set_keys("key-" + ident)
    message.set_property("id", ident)
    message.set_property("index", str(index))
    message.set_property("crc", f"{zlib.crc32(body):08x}")
    message.set_property("text", TEXT)
    return message


def verify(message):
    """Checks everything a message carries and answers its id and index."""
    ident = message.get_property("id").decode()
    index = int(message.get_property("index"))
    same(message.get_property("crc").decode(), f"{zlib.crc32(message.body):08x}", "crc of " + ident)
    same(TEXT, message.get_property("text").decode(), "property text of " + ident)
    same(TAGS[index % len(TAGS)], message.tags.decode(), "tag of " + ident)
    same("key-" + ident, message.keys.decode(), "key of " + ident)
    return ident, index


# Clients


def instance():
    return f"python-{os.getpid()}-{next(INSTANCES)}"


def producer_of(options):
    producer = Producer(options.group + "-producer", timeout=10_000)
    ffi_check(dll.SetProducerInstanceName(producer._handle, instance().encode()))
    producer.set_namesrv_addr(options.namesrv)
    producer.start()
    return producer


def send(producer, options, ident, index, size=None):
    result = producer.send_sync(make(options, ident, index, size))
    same(SendStatus.OK, result.status, "status of " + ident)
    return result.offset


def first(producer, options):
    """The binding has no admin: the first message creates the topic. It counts as one.

    The client knows no route as long as its own thread that asks for routes is at it.
    """
    offsets = []

    def is_sent():
        try:
            offsets.append(send(producer, options, "first", 0))
        except ProducerSendSyncFailed as failed:
            if "No route info" not in str(failed):
                raise
        return offsets

    until(30, lambda: "a route for the first message", is_sent)
    return offsets[0]


class Listening:
    """A push consumer that counts."""

    def __init__(
        self, options, group, tags="*", model=MessageModel.CLUSTERING, take=None, orderly=False
    ):
        self.lock = threading.Lock()
        self.times = {}
        self.total = 0
        self.failure = None
        self.take = take
        self.consumer = PushConsumer(group, orderly=orderly, message_model=model)
        self.consumer.set_instance_name(instance())
        self.consumer.set_namesrv_addr(options.namesrv)
        self.consumer.set_thread_count(4)
        ffi_check(dll.Subscribe(self.consumer._handle, options.topic.encode(), tags.encode()))
        # PushConsumer.subscribe turns an exception of its listener into success, so that
        # only a callback that answers by itself can refuse a message.
        self.consumer._register_callback(self.listen)
        self.consumer.start()

    def listen(self, _consumer, handle):
        try:
            message = RecvMessage(handle)
            ident, index = verify(message)
            if self.take is not None and not self.take(message, ident, index):
                return 1
            with self.lock:
                self.times[ident] = self.times.get(ident, 0) + 1
                self.total += 1
        except BaseException as thrown:
            self.failure = thrown
        return 0

    def stop(self):
        self.consumer.shutdown()
        same(None, self.failure, "listener")


def read_all(options, group):
    """Every stored message as (queue, offset) -> (id, index), each checked."""
    PullConsumer.offset_table = {}
    return read_on(options, group)


def read_on(options, group, each=None):
    consumer = PullConsumer(group)
    consumer.set_namesrv_addr(options.namesrv)
    consumer.start()
    found = {}
    for message in consumer.pull(options.topic):
        place = (message.queue_id, message.queue_offset)
        check(place not in found, f"twice: {place}")
        found[place] = verify(message)
        if each is not None:
            each(message, found[place][0])
    consumer.shutdown()
    return found


# Scenarios


def run_send(options):
    """Every way to send, to a topic that the first send creates; then all of it is read back."""
    producer = producer_of(options)
    offsets = {}
    for index in range(options.count):
        offsets[f"sync-{index}"] = send(producer, options, f"sync-{index}", index)
    send_async(producer, options, offsets)
    for index in range(options.count):
        producer.send_oneway(make(options, f"oneway-{index}", index))
    for index in range(options.count):
        result = producer.send_orderly(make(options, f"ordered-{index}", index), index % 7)
        offsets[f"ordered-{index}"] = result.offset
    read_back(options, offsets)
    producer.shutdown()


def send_async(producer, options, offsets):
    failures = []
    before = len(offsets)

    def arrived(ident):
        return lambda result: offsets.__setitem__(ident, result.offset)

    # The library keeps a pointer to the message until the answer: keep them alive.
    messages = [make(options, f"async-{index}", index) for index in range(options.count)]
    for index, message in enumerate(messages):
        producer.send_async(message, arrived(f"async-{index}"), failures.append)
    until(30, lambda: f"{len(offsets) - before} answers, {failures}", lambda: (
        failures or len(offsets) == before + options.count))
    same([], failures, "asynchronous send")


def read_back(options, offsets):
    expected = options.count * 4
    PullConsumer.offset_table = {}
    found = {}

    def form(message, ident):
        large = len(message.body) >= 4096
        same(large, message.store_size < len(message.body), "deflated: " + ident)

    def complete():
        found.update(read_on(options, options.group + "-check", form))
        return len(found) >= expected

    until(30, lambda: f"{len(found)} of {expected}", complete)
    same(expected, len(found), "messages read")
    by_id = {ident: place for place, (ident, _) in found.items()}
    same(expected, len(by_id), "different messages")
    for ident, offset in offsets.items():
        same(offset, by_id[ident][1], "offset of " + ident)
    for key in range(7):
        used = {by_id[f"ordered-{index}"][0] for index in range(key, options.count, 7)}
        same(1, len(used), f"queues of key {key}")
    FACTS["messages"] = expected


class Stream:
    """Sends in the background until told to end."""

    def __init__(self, options, producer):
        self.sent = []
        self.ended = False
        self.failure = None
        self.thread = threading.Thread(target=self.run, args=(options, producer), daemon=True)
        self.thread.start()

    def run(self, options, producer):
        index = 0
        while not self.ended and self.failure is None:
            try:
                send(producer, options, f"stream-{index}", index)
                self.sent.append(f"stream-{index}")
            except BaseException as thrown:
                self.failure = thrown
            index += 1
            time.sleep(0.004)

    def end(self):
        self.ended = True
        self.thread.join()
        same(None, self.failure, "background send")
        return self.sent


def run_push(options):
    """A second member joins a group at work and leaves it again."""
    producer = producer_of(options)
    first(producer, options)
    stream = Stream(options, producer)
    one = Listening(options, options.group)
    until(60, lambda: f"the first member takes all, {one.total}", lambda: (
        len(one.times) >= options.count))
    mark("alone")
    other = Listening(options, options.group)
    enough = options.count // 4
    until(60, lambda: f"the second member gets a share, {other.total}", lambda: (
        other.total >= enough))
    before = one.total
    until(60, lambda: "the first member keeps a share", lambda: one.total >= before + enough)
    mark("both")
    other.stop()
    already = len(stream.sent)
    until(60, lambda: "the first member takes over", lambda: (
        len(stream.sent) >= already + enough
        and all(ident in one.times for ident in stream.sent[already : already + enough])))
    sent = stream.end()
    def missing():
        return [ident for ident in sent if ident not in one.times and ident not in other.times]

    until(60, lambda: f"missing of {len(sent)}: {missing()[:20]}", lambda: not missing())
    one.stop()
    FACTS["sent"] = len(sent)
    FACTS["repeated"] = one.total + other.total - len(sent) - 1
    producer.shutdown()


def run_broadcast(options):
    producer = producer_of(options)
    first(producer, options)
    members = [Listening(options, options.group, model=MessageModel.BROADCASTING) for _ in range(2)]
    # A new broadcasting member of this library starts at the end of the queues: wait for it.
    time.sleep(3)
    for index in range(options.count):
        send(producer, options, f"m-{index}", index)
    wanted = {f"m-{index}" for index in range(options.count)}
    until(40, lambda: f"{[len(one.times) for one in members]} arrived", lambda: all(
        wanted <= set(one.times) for one in members))
    for one in members:
        check(one.total <= options.count + 1, f"{one.total} deliveries")
        one.stop()
    producer.shutdown()


def run_tags(options):
    """Only the tags asked for arrive; a plain group sees the rest too."""
    producer = producer_of(options)
    first(producer, options)
    for index in range(options.count):
        send(producer, options, f"m-{index}", index)
    wanted = {f"m-{index}" for index in range(options.count) if TAGS[index % 3] != "B"} | {"first"}
    some = Listening(options, options.group, "A || C")
    everything = Listening(options, options.group + "-all")
    until(40, lambda: f"{len(some.times)} and {len(everything.times)} arrived", lambda: (
        len(some.times) >= len(wanted) and len(everything.times) >= options.count + 1))
    same(wanted, set(some.times), "messages of two tags")
    some.stop()
    everything.stop()
    producer.shutdown()


def run_orderly(options):
    producer = producer_of(options)
    first(producer, options)
    taken = {}

    def take(message, ident, index):
        if ident != "first":
            taken.setdefault(message.queue_id, []).append(index)
        return True

    member = Listening(options, options.group, take=take, orderly=True)
    for index in range(options.count):
        producer.send_orderly(make(options, f"o-{index}", index), index % QUEUES)
    until(60, lambda: f"{member.total} arrived", lambda: member.total >= options.count + 1)
    member.stop()
    same(QUEUES, len(taken), "queues used")
    for queue, indexes in taken.items():
        expected = [indexes[0] + QUEUES * at for at in range(len(indexes))]
        same(expected, indexes, f"order in queue {queue}")
    producer.shutdown()


def run_retry(options):
    """Refused messages come back. This library cannot choose the delay: 10 s the first time."""
    producer = producer_of(options)
    first(producer, options)
    count = min(options.count, 12)
    for index in range(count):
        send(producer, options, f"r-{index}", index)
    attempts = {}

    def take(message, ident, _index):
        # A refusal sends back the rest of its batch unasked, so the listener cannot count along.
        attempts[ident] = message.reconsume_times
        same(options.topic, message.topic, "topic of " + ident)
        return message.reconsume_times > 0

    member = Listening(options, options.group, take=take)
    until(90, lambda: f"{member.total} taken, {attempts}", lambda: (
        member.failure is not None or len(member.times) >= count + 1))
    member.stop()
    same({1}, set(attempts.values()), "attempts")
    producer.shutdown()


def run_pull(options):
    """Pulls with offsets kept by the program: the binding can neither commit nor query any."""
    producer = producer_of(options)
    for index in range(options.count):
        send(producer, options, f"p-{index}", index)
    half = read_all(options, options.group)
    same(options.count, len(half), "first half")
    for index in range(options.count, 2 * options.count):
        send(producer, options, f"p-{index}", index)
    rest = read_on(options, options.group)
    same(options.count, len(rest), "second half")
    check(not set(half) & set(rest), "pulled twice")
    for queue in {queue for queue, _ in half}:
        offsets = sorted(offset for place, offset in [*half, *rest] if place == queue)
        same(list(range(len(offsets))), offsets, f"offsets of queue {queue}")
    producer.shutdown()


def run_delay(options):
    producer = producer_of(options)
    first(producer, options)
    arrived = {}
    member = Listening(options, options.group, take=lambda _message, ident, _index: (
        arrived.setdefault(ident, time.time()) > 0))
    until(60, lambda: "the plain message", lambda: "first" in arrived)
    due = {}
    for index in range(6):
        level = 1 + index % 2
        message = make(options, f"d-{index}", index)
        message.set_delay_time_level(level)
        due[f"d-{index}"] = time.time() + (1 if level == 1 else 5)
        producer.send_sync(message)
    until(40, lambda: f"{sorted(arrived)} arrived", lambda: len(arrived) == 7)
    for ident, at in due.items():
        late = arrived[ident] - at
        check(-0.005 <= late < 5, f"{ident} late by {late} s")
    member.stop()
    producer.shutdown()


def run_restart(options):
    """Sends while the server is killed and started again; nothing acknowledged may be lost."""
    producer = producer_of(options)
    acknowledged = {"first": first(producer, options)}
    member = Listening(options, options.group)
    refused = []
    ended = threading.Event()

    def send_on(number):
        index = number
        while not ended.is_set():
            ident = f"t{number}-{index}"
            try:
                acknowledged[ident] = send(producer, options, ident, index, 300)
                time.sleep(0.005)
            except BaseException as thrown:
                refused.append(thrown)
                time.sleep(0.1)
            index += 3

    threads = [threading.Thread(target=send_on, args=(number,), daemon=True) for number in range(3)]
    for thread in threads:
        thread.start()
    until(60, lambda: f"{len(acknowledged)} acknowledged", lambda: (
        len(acknowledged) >= options.count))
    mark("steady")
    same("restarted", sys.stdin.readline().strip(), "line from the runner")
    before = len(acknowledged)
    until(120, lambda: f"{len(acknowledged) - before} acknowledged after the restart", lambda: (
        len(acknowledged) >= before + options.count))
    ended.set()
    for thread in threads:
        thread.join()
    FACTS["acknowledged"] = len(acknowledged)
    FACTS["refused"] = len(refused)
    in_place(acknowledged, read_all(options, options.group + "-check"))
    until(90, lambda: f"{len(set(acknowledged) - set(member.times))} not consumed", lambda: (
        set(acknowledged) <= set(member.times)))
    FACTS["repeated"] = member.total - len(member.times)
    member.stop()
    producer.shutdown()


def in_place(acknowledged, stored):
    """Each acknowledged message has the acknowledged offset; a thread's own are in order."""
    offsets_of = {}
    last = {}
    for (queue, offset), (ident, index) in sorted(stored.items()):
        offsets_of.setdefault(ident, set()).add(offset)
        if acknowledged.get(ident) == offset and ident != "first":
            check(last.get((queue, ident[:2]), -1) < index, f"order in queue {queue}: {ident}")
            last[(queue, ident[:2])] = index
    for ident, offset in acknowledged.items():
        check(offset in offsets_of.get(ident, ()), f"lost or moved: {ident} at {offset}")
    FACTS["unacknowledged"] = len(stored) - len(acknowledged)


SCENARIOS = {
    "send": run_send,
    "push": run_push,
    "broadcast": run_broadcast,
    "tags": run_tags,
    "orderly": run_orderly,
    "retry": run_retry,
    "pull": run_pull,
    "delay": run_delay,
    "restart": run_restart,
}

if __name__ == "__main__":
    main()
