"""A thousand clients that only keep in touch: heartbeats and long polls, no messages.

Written apart from the load generator on purpose: nothing is measured in here, so a slow language
does no harm, and a broker that costs nothing while idle cannot be a fault of our own generator's.
"""

import json
import selectors
import socket
import struct
import time

import wire
from trouble import Trouble

HEART_BEAT = 34
# As the Java client: a heartbeat every 30 s, polls that wait 15 s.
HEARTBEAT_SECONDS = 30
POLL_MS = 15_000
# PullSysFlag: suspend, and the subscription is in the request.
FLAGS = 2 | 4
GROUPS = 100


class Client:
    """One connection with one long poll."""

    def __init__(self, number, address, topic, queues):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.number = number
        self.group = f"idle-{number % GROUPS}"
        self.topic, self.queue = topic, number % queues
        self.input = bytearray()
        self.answers = 0

    def send(self, code, fields, body=b""):
        self.socket.sendall(wire.encode(code, fields, body, opaque=code))

    def beat(self):
        subscription = {"topic": self.topic, "subString": "*", "expressionType": "TAG",
                        "classFilterMode": False, "subVersion": 1, "tagsSet": [], "codeSet": []}
        consumer = {"groupName": self.group, "consumeType": "CONSUME_PASSIVELY",
                    "messageModel": "CLUSTERING", "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET",
                    "subscriptionDataSet": [subscription], "unitMode": False}
        body = {"clientID": f"127.0.0.1@{self.number}", "consumerDataSet": [consumer],
                "producerDataSet": []}
        self.send(HEART_BEAT, {}, json.dumps(body).encode())

    def poll(self):
        self.send(wire.PULL_MESSAGE, {
            "consumerGroup": self.group, "topic": self.topic, "queueId": self.queue,
            "queueOffset": 0, "maxMsgNums": 32, "sysFlag": FLAGS, "commitOffset": 0,
            "suspendTimeoutMillis": POLL_MS, "subscription": "*", "subVersion": 1,
            "expressionType": "TAG",
        })

    def read(self):
        """Takes what has come; asks again for every poll that was answered."""
        data = self.socket.recv(65_536)
        if not data:
            raise Trouble("the broker closed the connection of an idle client")
        self.input += data
        while len(self.input) >= 4:
            (count,) = struct.unpack_from(">I", self.input)
            if len(self.input) < 4 + count:
                return
            header, _ = wire.decode(bytes(self.input[4 : 4 + count]))
            del self.input[: 4 + count]
            # Bit 0 of the flag marks an answer; requests of the broker's own need none here.
            if header.get("flag", 0) & 1 and header.get("opaque") == wire.PULL_MESSAGE:
                self.answers += 1
                self.poll()


class Crowd:
    """All of them on one thread."""

    def __init__(self, count, address, topic, queues):
        self.selector = selectors.DefaultSelector()
        self.clients = []
        try:
            for number in range(count):
                client = Client(number, address, topic, queues)
                self.clients.append(client)
                self.selector.register(client.socket, selectors.EVENT_READ, client)
                client.beat()
                client.poll()
        except OSError as error:
            self.close()
            raise Trouble(
                f"idle client {len(self.clients) + 1} of {count} cannot connect ({error}): raise "
                "`ulimit -n` and repeat"
            ) from None
        self.next_beat = time.monotonic() + HEARTBEAT_SECONDS

    def live(self, seconds):
        """Keeps them all in touch for so long."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            if now >= self.next_beat:
                # Spread over the period, as clients that started at different times are.
                for client in self._due():
                    client.beat()
            for key, _ in self.selector.select(timeout=0.05):
                key.data.read()

    def _due(self):
        step = max(1, len(self.clients) // (HEARTBEAT_SECONDS * 10))
        self.next_beat += HEARTBEAT_SECONDS * step / len(self.clients)
        due, self.clients = self.clients[:step], self.clients[step:] + self.clients[:step]
        return due

    def close(self):
        for client in self.clients:
            client.socket.close()
        self.selector.close()
