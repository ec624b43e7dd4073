"""The few remoting requests a comparison needs itself, over a plain socket with JSON headers.

Each call is one connection. Codes and fields: RequestCode.java and the header classes of
RocketMQ 5.5.0.
"""

import json
import socket
import struct

PULL_MESSAGE = 11
UPDATE_AND_CREATE_TOPIC = 17
GET_MAX_OFFSET = 30
GET_ROUTEINFO_BY_TOPIC = 105
GET_BROKER_CLUSTER_INFO = 106
SUCCESS = 0
# PullSysFlag: the request names its subscription, so no heartbeat has to come first.
FLAG_SUBSCRIPTION = 4
FRAME_BYTES_MAX = 64 << 20


def encode(code, fields, body=b"", opaque=1):
    """One request as bytes."""
    header = {
        "code": code,
        "flag": 0,
        "language": "OTHER",
        "opaque": opaque,
        "serializeTypeCurrentRPC": "JSON",
        "version": 0,
    }
    if fields:
        header["extFields"] = {key: str(value) for key, value in fields.items()}
    text = json.dumps(header).encode()
    return struct.pack(">II", 4 + len(text) + len(body), len(text)) + text + body


def decode(frame):
    """Header and body of what follows the length of a frame."""
    (header_bytes,) = struct.unpack_from(">I", frame)
    # The highest byte names the codec; 0 is JSON, in which the answer to JSON comes.
    end = 4 + (header_bytes & 0xFFFFFF)
    return json.loads(frame[4:end]), frame[end:]


def _receive(connection, count):
    data = bytearray()
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            raise OSError("the peer closed the connection")
        data += chunk
    return bytes(data)


def call(address, code, fields=None, body=b"", seconds=5):
    """Asks and returns (header, body); OSError or ValueError if that fails."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(encode(code, fields, body))
        (count,) = struct.unpack(">I", _receive(connection, 4))
        if count > FRAME_BYTES_MAX:
            raise ValueError(f"an answer of {count} bytes")
        return decode(_receive(connection, count))


def is_registered(namesrv, broker_name):
    """Whether a name server knows the broker."""
    try:
        _, body = call(namesrv, GET_BROKER_CLUSTER_INFO, seconds=2)
    except (OSError, ValueError):
        return False
    return f'"brokerName":"{broker_name}"'.encode() in body.replace(b" ", b"")


def has_route(namesrv, topic):
    try:
        fields = {"topic": topic, "acceptStandardJsonOnly": "true"}
        header, _ = call(namesrv, GET_ROUTEINFO_BY_TOPIC, fields, seconds=2)
    except (OSError, ValueError):
        return False
    return header["code"] == SUCCESS


def create_topic(broker, topic, queues):
    """Asks a broker for a topic, as mqadmin does; returns why there is none, else None."""
    fields = {
        "topic": topic,
        "defaultTopic": "TBW102",
        "readQueueNums": queues,
        "writeQueueNums": queues,
        "perm": 6,
        "topicFilterType": "SINGLE_TAG",
        "topicSysFlag": 0,
        "order": "false",
    }
    try:
        header, _ = call(broker, UPDATE_AND_CREATE_TOPIC, fields, seconds=15)
    except (OSError, ValueError) as error:
        return f"no answer: {error}"
    return None if header["code"] == SUCCESS else header.get("remark", "no remark")


def stored_bytes(broker, topic, queue):
    """The bytes the newest message of a queue takes in the log; None if it has none."""
    header, _ = call(broker, GET_MAX_OFFSET, {"topic": topic, "queueId": queue})
    end = int(header.get("extFields", {}).get("offset", 0))
    if end == 0:
        return None
    fields = {
        "consumerGroup": "compare",
        "topic": topic,
        "queueId": queue,
        "queueOffset": end - 1,
        "maxMsgNums": 1,
        "sysFlag": FLAG_SUBSCRIPTION,
        "commitOffset": 0,
        "suspendTimeoutMillis": 0,
        "subscription": "*",
        "subVersion": 0,
        "expressionType": "TAG",
    }
    header, body = call(broker, PULL_MESSAGE, fields)
    if header["code"] != SUCCESS or len(body) < 4:
        return None
    # A record starts with its size (MessageDecoder.java).
    return struct.unpack_from(">I", body)[0]
