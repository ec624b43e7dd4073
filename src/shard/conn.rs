//! One connection: bytes in until they are frames, output until it is sent, and its limits.
//!
//! * A connection ends once: whoever wants that hangs up, and the shard takes it away when the ring
//!   watches its descriptor no more, so the machine hears `Closed` exactly once.
//! * Sending happens at the end of a turn with one non-blocking `sendmsg`. Only when the socket is
//!   full the ring tells when there is room again.
//! * Receive buffers belong to the shard and are lent for one receive, so an idle connection holds
//!   none. A partial frame is kept in `carry`, or in a buffer of its own if it is large.

use crate::base::{Mono, Now};
use crate::machine::{Link, Output, Part};
use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;
use socket2::SockRef;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

/// Parts of one `sendmsg`; the kernel's limit (IOV_MAX).
const PARTS_PER_SEND: usize = 1024;
/// A partial frame's memory beyond this is given back once the frame is whole.
const CARRY_KEPT_BYTES: usize = 4096;
/// Sent bytes are cut off the front of a stuck connection's buffer in steps of this size.
const SENT_KEPT_BYTES: usize = 256 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Open,
    /// To be shut down once the output is sent; what comes in is dropped.
    Finishing,
    /// Our side is shut down. Waiting for the peer's end, so that it can read our last bytes: a
    /// socket closed with unread bytes would reset them away.
    Lingering,
    Dead,
}

/// What keeps a connection from being read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// The ring tells when there is something.
    Watched,
    /// In the shard's list of those to be read next.
    Ready,
    /// It was read a moment ago, and what it sent waits for the disk.
    Resting,
    /// The machine admits nothing, or mail is congested: in the shard's list of the paused.
    Paused,
    /// The peer must first take what was sent to it.
    Throttled,
}

pub struct Conn {
    pub link: Link,
    socket: TcpStream,
    phase: Phase,
    pub input: Input,
    /// The ring tells when the socket takes output again.
    pub output_watched: bool,
    /// What the socket did not take.
    sending: Sending,
    /// When bytes last moved in either direction.
    moved: Mono,
    /// When the frame began that is not whole yet.
    partial_since: Option<Mono>,
    finishing_since: Mono,
    /// The peer speaks our protocol.
    pub known: bool,
    carry: Vec<u8>,
    /// A frame larger than a receive buffer, and how much of it is there.
    large: Option<(BytesMut, usize)>,
    /// A receive of which only a part was handed over yet.
    pub unread: Option<Chunk>,
}

/// Received bytes: frames from `used` up to `filled`.
pub struct Chunk {
    pub bytes: Bytes,
    pub used: usize,
    pub filled: usize,
}

/// What a receive gave.
pub enum Received {
    Chunk(Chunk),
    /// A large frame has grown but is not whole.
    More,
    /// Nothing there.
    Empty,
    End,
}

impl Conn {
    pub fn new(link: Link, socket: TcpStream, now: Now) -> Self {
        Conn {
            link,
            socket,
            phase: Phase::Open,
            input: Input::Ready,
            output_watched: false,
            sending: Sending::default(),
            moved: now.mono,
            partial_since: None,
            finishing_since: now.mono,
            known: false,
            carry: Vec::new(),
            large: None,
            unread: None,
        }
    }

    pub fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Bytes that the socket did not take.
    pub fn backlog(&self) -> usize {
        self.sending.left
    }

    pub fn idle_ms(&self, now: Now) -> u64 {
        now.mono.since_ms(self.moved)
    }

    pub fn partial_ms(&self, now: Now) -> u64 {
        self.partial_since
            .map_or(0, |since| now.mono.since_ms(since))
    }

    pub fn finishing_ms(&self, now: Now) -> u64 {
        match self.phase {
            Phase::Finishing | Phase::Lingering => now.mono.since_ms(self.finishing_since),
            Phase::Open | Phase::Dead => 0,
        }
    }

    /// Ends the connection now. False if it was ended before.
    pub fn hang_up(&mut self) -> bool {
        if self.phase == Phase::Dead {
            return false;
        }
        self.phase = Phase::Dead;
        self.unread = None;
        self.shutdown(Shutdown::Both);
        true
    }

    /// Whether the ring still knows the descriptor.
    pub fn is_watched(&self) -> bool {
        self.input == Input::Watched || self.output_watched
    }

    /// Ends the connection once its output is sent. True if it was open.
    pub fn finish(&mut self, now: Now) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        self.phase = Phase::Finishing;
        self.finishing_since = now.mono;
        self.linger_if_sent();
        true
    }

    fn linger_if_sent(&mut self) {
        if self.phase == Phase::Finishing && self.sending.left == 0 {
            self.phase = Phase::Lingering;
            self.shutdown(Shutdown::Write);
        }
    }

    fn shutdown(&self, how: Shutdown) {
        // An error means the peer was faster; the next receive will say that, too.
        let _ = self.socket.shutdown(how);
    }

    /// Sends what `output` holds, or keeps the rest until there is room. `scratch` is memory to
    /// work in, empty before and after. Gives how many bytes the socket took; an error ends the
    /// connection.
    pub fn send(
        &mut self,
        output: &mut Output,
        scratch: &mut Sending,
        now: Now,
    ) -> io::Result<usize> {
        scratch.load(output);
        if matches!(self.phase, Phase::Lingering | Phase::Dead) {
            scratch.clear();
            return Ok(0);
        }
        if self.sending.left > 0 {
            self.sending.append(scratch);
            return Ok(0);
        }
        let before = scratch.left;
        let outcome = scratch.push(SockRef::from(&self.socket));
        let sent = before - scratch.left;
        if sent > 0 {
            self.moved = now.mono;
        }
        match outcome {
            Ok(()) => self.linger_if_sent(),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                std::mem::swap(scratch, &mut self.sending);
            }
            Err(e) => {
                scratch.clear();
                return Err(e);
            }
        }
        scratch.clear();
        Ok(sent)
    }

    /// Sends more of what waits. Gives how many bytes the socket took.
    pub fn send_on(&mut self, now: Now) -> io::Result<usize> {
        let before = self.sending.left;
        match self.sending.push(SockRef::from(&self.socket)) {
            Err(e) if e.kind() != ErrorKind::WouldBlock => return Err(e),
            _ => {}
        }
        let sent = before - self.sending.left;
        if sent > 0 {
            self.moved = now.mono;
        }
        if self.sending.left == 0 {
            self.sending.clear();
            self.linger_if_sent();
        }
        Ok(sent)
    }

    /// Receives into `buffer`, which is taken if something came. Gives also the number of bytes.
    pub fn receive(&mut self, now: Now, buffer: &mut Option<BytesMut>) -> (Received, usize) {
        if let Some((frame, filled)) = &mut self.large {
            let count = match read(&self.socket, &mut frame[*filled..]) {
                Ok(count) => count,
                Err(other) => return (other, 0),
            };
            self.moved = now.mono;
            *filled += count;
            let whole = *filled == frame.len();
            let received = match self.large.take_if(|_| whole) {
                Some((frame, filled)) => Received::Chunk(Chunk {
                    bytes: frame.freeze(),
                    used: 0,
                    filled,
                }),
                None => Received::More,
            };
            return (received, count);
        }
        let kept = self.carry.len();
        let target = buffer.as_mut().expect("a buffer was lent");
        let count = match read(&self.socket, &mut target[kept..]) {
            Ok(count) => count,
            Err(other) => return (other, 0),
        };
        self.moved = now.mono;
        target[..kept].copy_from_slice(&self.carry);
        self.carry.clear();
        self.carry.shrink_to(CARRY_KEPT_BYTES);
        let bytes = buffer.take().expect("a buffer was lent").freeze();
        let chunk = Chunk {
            bytes,
            used: 0,
            filled: kept + count,
        };
        (Received::Chunk(chunk), count)
    }

    /// Keeps the start of a frame of `len` bytes, if that is known, until the rest comes. `began`
    /// says that it is another frame than before.
    pub fn keep(&mut self, now: Now, rest: &[u8], len: Option<usize>, began: bool, large: usize) {
        if rest.is_empty() {
            self.partial_since = None;
            return;
        }
        if began || self.partial_since.is_none() {
            self.partial_since = Some(now.mono);
        }
        match len {
            Some(len) if len > large => {
                let mut frame = BytesMut::zeroed(len);
                frame[..rest.len()].copy_from_slice(rest);
                self.large = Some((frame, rest.len()));
            }
            _ => self.carry.extend_from_slice(rest),
        }
    }
}

fn read(mut socket: &TcpStream, into: &mut [u8]) -> Result<usize, Received> {
    match socket.read(into) {
        Ok(0) => Err(Received::End),
        Ok(count) => Ok(count),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Err(Received::Empty),
        Err(e) if e.kind() == ErrorKind::Interrupted => Err(Received::More),
        Err(_) => Err(Received::End),
    }
}

/// Output on its way: inline bytes and the parts that say in which order they go.
#[derive(Default)]
pub struct Sending {
    bytes: Vec<u8>,
    /// Inline bytes before this are sent.
    at: usize,
    parts: VecDeque<Part>,
    left: usize,
}

impl Sending {
    fn load(&mut self, output: &mut Output) {
        assert_eq!(self.left, 0, "a scratch is empty before it is used");
        self.left = output.pending();
        output.take(&mut self.bytes, &mut self.parts);
    }

    /// Keeps the memory, unless a burst made it large.
    fn clear(&mut self) {
        if self.bytes.capacity() > SENT_KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.parts.clear();
        self.at = 0;
        self.left = 0;
    }

    fn append(&mut self, more: &mut Sending) {
        if self.at > SENT_KEPT_BYTES {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(&more.bytes[more.at..]);
        self.parts.append(&mut more.parts);
        self.left += more.left;
        more.clear();
    }

    /// Sends until all is gone or the socket is full (`WouldBlock`).
    fn push(&mut self, socket: SockRef<'_>) -> io::Result<()> {
        while self.left > 0 {
            let sent = self.push_once(&socket);
            match sent {
                Ok(sent) => self.advance(sent),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn push_once(&self, socket: &SockRef<'_>) -> io::Result<usize> {
        let mut slices = SmallVec::<[IoSlice<'_>; 32]>::new();
        let mut inline = &self.bytes[self.at..];
        for part in self.parts.iter().take(PARTS_PER_SEND) {
            slices.push(IoSlice::new(match part {
                Part::Inline(len) => {
                    let (head, rest) = inline.split_at(*len);
                    inline = rest;
                    head
                }
                Part::Shared(bytes) => bytes,
            }));
        }
        socket.send_vectored_with_flags(&slices, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    }

    fn advance(&mut self, mut sent: usize) {
        self.left -= sent;
        while let Some(part) = self.parts.front_mut() {
            let whole = match part {
                Part::Inline(len) => {
                    let taken = sent.min(*len);
                    self.at += taken;
                    *len -= taken;
                    sent -= taken;
                    *len == 0
                }
                Part::Shared(bytes) => {
                    let taken = sent.min(bytes.len());
                    bytes.advance(taken);
                    sent -= taken;
                    bytes.is_empty()
                }
            };
            if !whole {
                return;
            }
            self.parts.pop_front();
        }
        assert_eq!(sent, 0, "a socket takes no more than it was given");
    }
}
