#!/usr/bin/env python3
"""Replays a script against a fresh reference name server and records its answers in place.

usage: capture.py HOST:PORT SCRIPT.txt

  # comment
  > CONNECTION CODE VERSION FLAG {"extension":"field",…}     a request
  >> its body
  < CODE {"extension":"field",…} "remark"                    recorded: the answer
  << its body
  option key=value    close CONNECTION    wait MILLISECONDS
"""
import json
import socket
import struct
import sys
import time


class Peer:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))

    def receive(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def call(self, code, version, flag, fields, body):
        header = {"code": code, "language": "JAVA", "version": version, "opaque": 1,
                  "flag": flag, "serializeTypeCurrentRPC": "JSON", "extFields": fields}
        header = json.dumps(header).encode()
        body = body.encode()
        length = 4 + len(header) + len(body)
        self.socket.sendall(struct.pack(">II", length, len(header)) + header + body)
        if flag & 2:
            return None
        frame = self.receive(struct.unpack(">I", self.receive(4))[0])
        end = 4 + (struct.unpack(">I", frame[:4])[0] & 0xFFFFFF)
        return json.loads(frame[4:end]), frame[end:].decode()


def compact(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def replay(address, lines):
    peers = {}
    for at, line in enumerate(lines):
        word, _, rest = line.partition(" ")
        if word in (">>", "<", "<<"):
            continue
        yield line
        if word == "option":
            Peer(address).call(318, 513, 0, {}, rest + "\n")
        elif word == "wait":
            time.sleep(int(rest) / 1000)
        elif word == "close":
            peers.pop(rest).socket.close()
            time.sleep(0.6)
        elif word == ">":
            name, code, version, flag, fields = rest.split(" ", 4)
            follows = lines[at + 1] if at + 1 < len(lines) else ""
            body = follows[3:] if follows.startswith(">> ") else ""
            if name not in peers:
                peers[name] = Peer(address)
            answer = peers[name].call(int(code), int(version), int(flag), json.loads(fields), body)
            if body:
                yield follows
            if answer:
                header, body = answer
                text = f"< {header['code']} {compact(header.get('extFields') or {})}"
                if header.get("remark") is not None:
                    text += " " + compact(header["remark"])
                yield text
                if body:
                    yield "<< " + body
            if code == "104":
                time.sleep(0.4)


def main():
    address, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        lines = [line for line in file.read().split("\n") if line]
    recorded = list(replay(address, lines))
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(recorded) + "\n")


main()
