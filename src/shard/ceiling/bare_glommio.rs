//! The bare pipeline on glommio, as published: one task receives and gathers, as many as writes may
//! be in flight commit and reply.
//!
//! glommio's preemption timer is set so long that it never fires, because it can put an executor to
//! sleep that has runnable tasks; the receiving task gives way by itself.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_lite::AsyncReadExt;
use glommio::io::{DmaBuffer, DmaFile, OpenOptions};
use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement};
use socket2::{SockRef, Socket};

use super::group::{GROUP_BYTES, Group, Place, answer};
use super::inbox::Inbox;
use super::{Flush, Scratch};

const RECEIVE_BYTES: usize = 256 * 1024;
const WRITES_IN_FLIGHT: usize = 2;
/// Registered with the executor's rings: a buffer for each group at the disk, one that gathers.
const IO_MEMORY_BYTES: usize = 8 << 20;
const NEVER: Duration = Duration::from_secs(3600);
/// A socket that gave this much has more, and reading on would keep the reactor from the disk.
const GIVE_WAY_BYTES: usize = 16 * 1024;
/// Long enough to be in the future when the reactor looks.
const REACTOR_TURN: Duration = Duration::from_nanos(1);
/// A client that reads makes room sooner than that.
const SOCKET_FULL_PAUSE: Duration = Duration::from_micros(20);

pub fn serve(
    stream: TcpStream,
    reply: &[u8],
    scratch: &Scratch,
    flush: Flush,
) -> Result<(), String> {
    // The thread is pinned already.
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .preempt_timer(NEVER)
        .io_memory(IO_MEMORY_BYTES)
        .make();
    let executor = executor.map_err(|error| format!("glommio does not start: {error}"))?;
    executor.run(async {
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).dma_open(scratch.path());
        let opened = opened.await;
        let file = opened.map_err(|error| format!("the file cannot be opened again: {error}"))?;
        let server = Server::new(file, &stream, reply.to_vec(), scratch.bytes(), flush)?;
        let server = Rc::new(server);
        let committers: Vec<_> = (0..WRITES_IN_FLIGHT)
            .map(|_| glommio::spawn_local(commit_loop(server.clone())))
            .collect();
        let mut outcome = receive_loop(&server, stream).await;
        server.has_ended.set(true);
        server.work.wake_all();
        for committer in committers {
            outcome = outcome.and(committer.await);
        }
        outcome
    })
}

struct Server {
    file: DmaFile,
    socket: Socket,
    reply: Vec<u8>,
    flush: Flush,
    /// The group that gathers.
    open: RefCell<Option<(DmaBuffer, Group)>>,
    log: RefCell<Log>,
    /// Replies that the socket has not taken yet.
    out: RefCell<Vec<u8>>,
    /// There is something to commit, or nothing will come.
    work: Waiting,
    /// A new group can be opened.
    room: Waiting,
    /// The client has hung up, or a commit failed.
    has_ended: Cell<bool>,
}

/// The order of commits.
struct Log {
    place: Place,
    /// Groups at the disk, oldest first, and whether they are done.
    committing: VecDeque<(Group, bool)>,
    /// The number of the first of them.
    first: u64,
}

/// Tasks that wait.
#[derive(Default)]
struct Waiting(RefCell<Vec<Waker>>);

impl Waiting {
    fn line_up(&self, waker: &Waker) {
        self.0.borrow_mut().push(waker.clone());
    }

    fn wake_one(&self) {
        let next = self.0.borrow_mut().pop();
        if let Some(waker) = next {
            waker.wake();
        }
    }

    fn wake_all(&self) {
        self.0.take().into_iter().for_each(Waker::wake);
    }
}

impl Server {
    fn new(
        file: DmaFile,
        stream: &TcpStream,
        reply: Vec<u8>,
        file_bytes: u64,
        flush: Flush,
    ) -> Result<Server, String> {
        let socket = SockRef::from(stream).try_clone();
        Ok(Server {
            file,
            socket: socket.map_err(|error| format!("no second handle of the socket: {error}"))?,
            reply,
            flush,
            open: RefCell::default(),
            log: RefCell::new(Log {
                place: Place::new(file_bytes),
                committing: VecDeque::new(),
                first: 0,
            }),
            out: RefCell::default(),
            work: Waiting::default(),
            room: Waiting::default(),
            has_ended: Cell::new(false),
        })
    }

    /// Whole frames go to the open group. False if it is full.
    fn gather(&self, inbox: &mut Inbox) -> Result<bool, String> {
        let mut open = self.open.borrow_mut();
        let (buffer, group) =
            open.get_or_insert_with(|| (self.file.alloc_dma_buffer(GROUP_BYTES), Group::default()));
        let buffer = buffer.as_bytes_mut();
        let mut fits = Ok(true);
        while inbox.next(|frame| {
            fits = group.append(buffer, frame);
            fits == Ok(true)
        })? {}
        fits
    }

    /// Waits for a group to commit; `None` if there will be none.
    async fn next_group(&self) -> Option<(DmaBuffer, Group)> {
        poll_fn(|cx| {
            let mut open = self.open.borrow_mut();
            if open.as_ref().is_some_and(|(_, group)| group.messages > 0) {
                return Poll::Ready(open.take());
            }
            if self.has_ended.get() {
                return Poll::Ready(None);
            }
            self.work.line_up(cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Waits until the open group is taken.
    async fn group_taken(&self) {
        poll_fn(|cx| {
            if self.open.borrow().is_none() || self.has_ended.get() {
                return Poll::Ready(());
            }
            self.room.line_up(cx.waker());
            Poll::Pending
        })
        .await;
    }

    /// False if the socket did not take all.
    fn send(&self) -> bool {
        let mut out = self.out.borrow_mut();
        while !out.is_empty() {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            match self.socket.send_with_flags(&out, flags) {
                Ok(count) => drop(out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                // The client has gone; the receiver notices.
                Err(_) => out.clear(),
            }
        }
        true
    }

    async fn commit(&self, mut buffer: DmaBuffer, group: Group) -> Result<(), String> {
        let bytes = group.write_bytes();
        buffer.trim_to_size(bytes);
        let (number, at) = self.log.borrow_mut().begin(group);
        let failed = |error| format!("a commit failed: {error}");
        let written = self.file.write_at(buffer, at).await.map_err(failed)?;
        if written != bytes {
            return Err(format!("{written} of {bytes} bytes were written"));
        }
        if self.flush == Flush::Sync {
            self.file.fdatasync().await.map_err(failed)?;
        }
        self.log
            .borrow_mut()
            .done(number, &self.reply, &mut self.out.borrow_mut());
        Ok(())
    }
}

impl Log {
    /// Gives a group its number and its place.
    fn begin(&mut self, group: Group) -> (u64, u64) {
        let at = self.place.take(group.write_bytes());
        let number = self.first + self.committing.len() as u64;
        self.committing.push_back((group, false));
        (number, at)
    }

    /// Acknowledges the groups at the front of the log that are done.
    fn done(&mut self, number: u64, reply: &[u8], out: &mut Vec<u8>) {
        self.committing[(number - self.first) as usize].1 = true;
        while let Some((group, true)) = self.committing.front().copied() {
            answer(group, reply, out);
            self.committing.pop_front();
            self.first += 1;
        }
    }
}

async fn receive_loop(server: &Server, stream: TcpStream) -> Result<(), String> {
    // SAFETY: the descriptor is a connected socket that nobody else owns.
    let mut stream = unsafe { glommio::net::TcpStream::from_raw_fd(stream.into_raw_fd()) };
    let mut inbox = Inbox::new(RECEIVE_BYTES);
    loop {
        let count = match stream.read(inbox.room()).await {
            // An end, or a reset because answers were under way.
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) => count,
        };
        inbox.received(count);
        while !server.gather(&mut inbox)? {
            server.work.wake_one();
            server.group_taken().await;
            if server.has_ended.get() {
                return Ok(());
            }
        }
        server.work.wake_one();
        if count >= GIVE_WAY_BYTES {
            Timer::new(REACTOR_TURN).await;
        }
    }
}

async fn commit_loop(server: Rc<Server>) -> Result<(), String> {
    while let Some((buffer, group)) = server.next_group().await {
        server.room.wake_one();
        let committed = server.commit(buffer, group).await;
        if committed.is_err() {
            server.has_ended.set(true);
            server.room.wake_all();
            server.work.wake_all();
            // The receiver hears it as the client's end.
            let _ = server.socket.shutdown(std::net::Shutdown::Both);
        }
        committed?;
        while !server.send() {
            Timer::new(SOCKET_FULL_PAUSE).await;
        }
    }
    Ok(())
}
