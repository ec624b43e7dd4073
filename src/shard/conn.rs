//! One connection: bytes in until they are frames, output until it is sent, and its limits.
//!
//! * One task reads. It alone ends the connection, so the machine hears `Closed` exactly once;
//!   everybody else hangs up, which wakes the reader.
//! * Sending happens at the end of a turn with one non-blocking `sendmsg`. Only when the socket is
//!   full a second task is started, which lives as long as the connection.
//! * Receive buffers belong to the shard and are lent for one receive, so an idle connection holds
//!   none. A partial frame is kept in `carry`, or in a buffer of its own if it is large.

use super::bell::Bell;
use super::drive::Shard;
use crate::base::{Mono, Now};
use crate::machine::{FrameIn, Link, Machine, Output, Part};
use crate::remoting::frame::{FrameError, frame_len};
use crate::remoting::sniff::{Protocol, refusal, sniff};
use bytes::{Buf, Bytes, BytesMut};
use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use smallvec::SmallVec;
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Parts of one `sendmsg`; the kernel's limit (IOV_MAX).
const PARTS_PER_SEND: usize = 1024;
/// Frames between two looks at the clock.
const FRAMES_PER_LOOK: u64 = 32;
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

pub struct Conn {
    pub link: Link,
    stream: RefCell<TcpStream>,
    phase: Cell<Phase>,
    sending: RefCell<Sending>,
    /// Bytes in `sending`; more than zero while the writer task is at work.
    backlog: Cell<usize>,
    has_writer: Cell<bool>,
    writer: Bell,
    /// Rung when a paused reader may look again.
    pub reader: Bell,
    /// In the shard's list of those to ring when it admits again.
    pub paused: Cell<bool>,
    /// When bytes last moved in either direction.
    moved: Cell<Mono>,
    /// When the frame began that is not whole yet.
    partial_since: Cell<Option<Mono>>,
    finishing_since: Cell<Mono>,
}

impl Conn {
    pub fn new(link: Link, stream: TcpStream, now: Now) -> Self {
        Conn {
            link,
            stream: RefCell::new(stream),
            phase: Cell::new(Phase::Open),
            sending: RefCell::default(),
            backlog: Cell::new(0),
            has_writer: Cell::new(false),
            writer: Bell::default(),
            reader: Bell::default(),
            paused: Cell::new(false),
            moved: Cell::new(now.mono),
            partial_since: Cell::new(None),
            finishing_since: Cell::new(now.mono),
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub fn backlog(&self) -> usize {
        self.backlog.get()
    }

    pub fn idle_ms(&self, now: Now) -> u64 {
        now.mono.since_ms(self.moved.get())
    }

    pub fn partial_ms(&self, now: Now) -> u64 {
        self.partial_since
            .get()
            .map_or(0, |since| now.mono.since_ms(since))
    }

    pub fn finishing_ms(&self, now: Now) -> u64 {
        match self.phase.get() {
            Phase::Finishing | Phase::Lingering => now.mono.since_ms(self.finishing_since.get()),
            Phase::Open | Phase::Dead => 0,
        }
    }

    /// Ends the connection now. The reader notices and cleans up.
    pub fn hang_up(&self) {
        self.phase.set(Phase::Dead);
        self.shutdown(Shutdown::Both);
        self.reader.ring();
        self.writer.ring();
    }

    /// Ends the connection once its output is sent.
    pub fn finish(&self, now: Now) {
        if self.phase.get() == Phase::Open {
            self.phase.set(Phase::Finishing);
            self.finishing_since.set(now.mono);
            self.reader.ring();
            self.linger_if_sent();
        }
    }

    fn linger_if_sent(&self) {
        if self.phase.get() == Phase::Finishing && self.backlog.get() == 0 {
            self.phase.set(Phase::Lingering);
            self.shutdown(Shutdown::Write);
        }
    }

    fn shutdown(&self, how: Shutdown) {
        // An error means the peer was faster; the reader will see that, too.
        let _ = with_socket(&self.stream.borrow(), |socket| socket.shutdown(how));
    }

    /// Sends what `output` holds, or keeps the rest for the writer. `scratch` is memory to work
    /// in, empty before and after. Tells how many bytes the socket took.
    pub fn send(&self, output: &mut Output, scratch: &mut Sending, now: Now) -> usize {
        scratch.load(output);
        if matches!(self.phase.get(), Phase::Lingering | Phase::Dead) {
            scratch.clear();
            return 0;
        }
        if self.backlog.get() > 0 {
            self.backlog.set(self.backlog.get() + scratch.left);
            self.sending.borrow_mut().append(scratch);
            return 0;
        }
        let before = scratch.left;
        let outcome = with_socket(&self.stream.borrow(), |socket| scratch.push(socket));
        let sent = before - scratch.left;
        if sent > 0 {
            self.moved.set(now.mono);
        }
        match outcome {
            Ok(()) => self.linger_if_sent(),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.backlog.set(scratch.left);
                std::mem::swap(scratch, &mut *self.sending.borrow_mut());
                self.writer.ring();
            }
            Err(_) => self.hang_up(),
        }
        scratch.clear();
        sent
    }

    /// True once, when the connection first needs its writer task.
    pub fn wants_writer(&self) -> bool {
        self.backlog.get() > 0 && !self.has_writer.replace(true)
    }

    fn poll_read(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, into)
    }

    /// Sends some of the backlog as soon as the socket takes it.
    fn poll_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut sending = self.sending.borrow_mut();
        let before = sending.left;
        let mut stream = self.stream.borrow_mut();
        // Only the stream knows how to wait for room, so the first part goes through it.
        let first = ready!(Pin::new(&mut *stream).poll_write(cx, sending.first()))?;
        sending.advance(first);
        match with_socket(&stream, |socket| sending.push(socket)) {
            Err(e) if e.kind() != ErrorKind::WouldBlock => return Poll::Ready(Err(e)),
            _ => {}
        }
        self.backlog.set(sending.left);
        Poll::Ready(Ok(before - sending.left))
    }
}

/// Options and sends that glommio's stream does not offer.
pub fn with_socket<T>(stream: &TcpStream, call: impl FnOnce(SockRef<'_>) -> T) -> T {
    // SAFETY: the descriptor belongs to `stream`, which is borrowed until the call has returned.
    let fd = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    call(SockRef::from(&fd))
}

/// An accepted socket lacks this flag if it was accepted without waiting.
pub fn close_on_exec(stream: &TcpStream) -> io::Result<()> {
    // SAFETY: the descriptor belongs to `stream`, which is borrowed until the call has returned;
    // this command takes no pointer.
    match unsafe { libc::fcntl(stream.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
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

    fn first(&self) -> &[u8] {
        match self.parts.front() {
            Some(Part::Inline(len)) => &self.bytes[self.at..self.at + len],
            Some(Part::Shared(bytes)) => bytes,
            None => &[],
        }
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

/// The task behind a connection: from its first byte to its end.
pub async fn serve<M: Machine + 'static>(shard: Rc<Shard<M>>, conn: Rc<Conn>) {
    receive(&shard, &conn).await;
    conn.hang_up();
    shard.closed(&conn);
}

/// Sends what the socket would not take at once.
pub async fn write_loop<M: Machine + 'static>(shard: Rc<Shard<M>>, conn: Rc<Conn>) {
    while conn.phase() != Phase::Dead {
        if conn.backlog() == 0 {
            conn.sending.borrow_mut().clear();
            conn.linger_if_sent();
            conn.writer.wait().await;
            continue;
        }
        match poll_fn(|cx| conn.poll_write(cx)).await {
            Ok(sent) => {
                conn.moved.set(shard.now().mono);
                shard.stats.borrow_mut().bytes_out += sent as u64;
                conn.reader.ring();
            }
            Err(_) => conn.hang_up(),
        }
        shard.around.pace.breathe().await;
    }
}

async fn receive<M: Machine + 'static>(shard: &Rc<Shard<M>>, conn: &Rc<Conn>) {
    let mut inbound = Inbound::default();
    while conn.phase() != Phase::Dead {
        shard.may_read(conn).await;
        match poll_fn(|cx| inbound.poll_fill(cx, shard, conn)).await {
            Filled::End => return,
            Filled::More => {}
            Filled::Chunk(buffer, filled) => {
                let now = shard.now();
                conn.moved.set(now.mono);
                let chunk = buffer.freeze();
                if conn.phase() == Phase::Open {
                    inbound.frames(shard, conn, &chunk, filled).await;
                }
                shard.give_back(chunk);
            }
        }
    }
}

enum Filled {
    /// So many bytes at the start of the buffer are to be looked at.
    Chunk(BytesMut, usize),
    /// A large frame has grown but is not whole.
    More,
    End,
}

/// What a connection keeps of its input between two receives.
#[derive(Default)]
struct Inbound {
    known: bool,
    carry: Vec<u8>,
    /// A frame larger than a receive buffer, and how much of it is there.
    large: Option<(BytesMut, usize)>,
}

impl Inbound {
    fn poll_fill<M: Machine + 'static>(
        &mut self,
        cx: &mut Context<'_>,
        shard: &Shard<M>,
        conn: &Conn,
    ) -> Poll<Filled> {
        ready!(shard.around.pace.poll(cx));
        if let Some((frame, filled)) = &mut self.large {
            let Ok(count @ 1..) = ready!(conn.poll_read(cx, &mut frame[*filled..])) else {
                return Poll::Ready(Filled::End);
            };
            *filled += count;
            shard.stats.borrow_mut().bytes_in += count as u64;
            let whole = *filled == frame.len();
            return Poll::Ready(match self.large.take_if(|_| whole) {
                Some((frame, filled)) => Filled::Chunk(frame, filled),
                None => Filled::More,
            });
        }
        let kept = self.carry.len();
        let mut buffer = shard.lend_buffer();
        match conn.poll_read(cx, &mut buffer[kept..]) {
            Poll::Pending => {
                shard.return_buffer(buffer);
                Poll::Pending
            }
            Poll::Ready(Ok(count @ 1..)) => {
                buffer[..kept].copy_from_slice(&self.carry);
                self.carry.clear();
                self.carry.shrink_to(CARRY_KEPT_BYTES);
                shard.stats.borrow_mut().bytes_in += count as u64;
                Poll::Ready(Filled::Chunk(buffer, kept + count))
            }
            Poll::Ready(_) => {
                shard.return_buffer(buffer);
                Poll::Ready(Filled::End)
            }
        }
    }

    /// Hands all whole frames to the machine and keeps the rest.
    async fn frames<M: Machine + 'static>(
        &mut self,
        shard: &Rc<Shard<M>>,
        conn: &Rc<Conn>,
        chunk: &Bytes,
        filled: usize,
    ) {
        if !self.known {
            match sniff(&chunk[..filled]) {
                Some(Protocol::Remoting) => self.known = true,
                Some(other) => return shard.refuse(conn, &refusal(other)),
                None => return self.keep(shard, conn, &chunk[..filled], None, 0),
            }
        }
        match hand_over(shard, conn, chunk, filled).await {
            Ok((used, len)) => self.keep(shard, conn, &chunk[used..filled], len, used),
            Err(error) => shard.broken(conn, &error),
        }
    }

    fn keep<M: Machine + 'static>(
        &mut self,
        shard: &Shard<M>,
        conn: &Conn,
        rest: &[u8],
        len: Option<usize>,
        used: usize,
    ) {
        if rest.is_empty() {
            conn.partial_since.set(None);
            return;
        }
        if used > 0 || conn.partial_since.get().is_none() {
            conn.partial_since.set(Some(shard.now().mono));
        }
        match len {
            Some(len) if len > shard.around.options.receive_bytes => {
                let mut frame = BytesMut::zeroed(len);
                frame[..rest.len()].copy_from_slice(rest);
                self.large = Some((frame, rest.len()));
            }
            _ => self.carry.extend_from_slice(rest),
        }
    }
}

/// One turn, or several if the executor wants to look at its sockets and disks in between. Gives
/// the bytes used and the length of the frame that is not whole, if it is known.
async fn hand_over<M: Machine + 'static>(
    shard: &Rc<Shard<M>>,
    conn: &Conn,
    chunk: &Bytes,
    filled: usize,
) -> Result<(usize, Option<usize>), FrameError> {
    let mut now = shard.now();
    let (mut used, mut handed) = (0, 0u64);
    let outcome = loop {
        let len = match frame_len(&chunk[used..filled]) {
            Ok(Some(len)) if len <= filled - used => len,
            Ok(len) => break Ok((used, len)),
            Err(error) => break Err(error),
        };
        let frame = FrameIn::new(chunk, used, used + len);
        shard.step_frame(now, &conn.link, frame);
        used += len;
        handed += 1;
        if handed.is_multiple_of(FRAMES_PER_LOOK) && shard.around.pace.spent() {
            shard.settle(now);
            shard.around.pace.breathe().await;
            if conn.phase() == Phase::Dead {
                return Ok((filled, None));
            }
            now = shard.now();
        }
    };
    shard.settle(now);
    outcome
}
