//! The bare pipeline on glommio, as published: one task receives and gathers, as many as writes may
//! be in flight commit and reply.
//!
//! glommio's preemption timer is set so long that it never fires (it can put an executor to sleep
//! that has runnable tasks); the receiving task gives way by itself.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::TcpStream;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_lite::AsyncReadExt;
use glommio::io::{DmaBuffer, DmaFile, OpenOptions};
use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement};
use socket2::SockRef;

use super::group::{GROUP_BYTES, Group, Place, Replies};
use super::inbox::Inbox;
use super::{Flush, Scratch};

#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    pub receive_bytes: usize,
    pub group_bytes: usize,
    pub in_flight: usize,
    pub spin: Duration,
    pub io_memory: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            receive_bytes: 256 * 1024,
            group_bytes: GROUP_BYTES,
            in_flight: 2,
            spin: Duration::ZERO,
            io_memory: 8 << 20,
        }
    }
}

/// A client that reads makes room sooner than that.
const SOCKET_FULL_PAUSE: Duration = Duration::from_micros(20);
const NEVER: Duration = Duration::from_secs(3600);

pub fn serve(stream: TcpStream, scratch: &Scratch, flush: Flush) -> Result<(), String> {
    serve_tuned(stream, scratch, flush, Tuning::default())
}

pub fn serve_tuned(
    stream: TcpStream,
    scratch: &Scratch,
    flush: Flush,
    tuning: Tuning,
) -> Result<(), String> {
    // The thread is where it belongs already.
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .preempt_timer(NEVER)
        .spin_before_park(tuning.spin)
        .io_memory(tuning.io_memory)
        .make();
    let executor = executor.map_err(|error| format!("glommio does not start: {error}"))?;
    executor.run(async {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .dma_open(scratch.path())
            .await;
        let file = opened.map_err(|error| format!("cannot open the file: {error}"))?;
        let server = Rc::new(Server::new(file, &stream, scratch.bytes(), flush, tuning));
        let committers: Vec<_> = (0..tuning.in_flight)
            .map(|_| glommio::spawn_local(commit_loop(server.clone())))
            .collect();
        let received = receive_loop(&server, stream).await;
        server.hung_up.set(true);
        server.work.wake_all();
        for committer in committers {
            committer.await?;
        }
        received
    })
}

struct Server {
    file: DmaFile,
    socket: socket2::Socket,
    flush: Flush,
    tuning: Tuning,
    open: RefCell<Option<(DmaBuffer, Group)>>,
    /// Groups at the disk, oldest first, and whether they are done.
    committing: RefCell<VecDeque<(Group, u64, bool)>>,
    first: Cell<u64>,
    next: Cell<u64>,
    place: RefCell<Place>,
    replies: RefCell<Replies>,
    out: RefCell<Vec<u8>>,
    /// For committers: there is something to commit.
    work: Waiting,
    /// For the receiver: there is room in a group.
    room: Waiting,
    hung_up: Cell<bool>,
}

#[derive(Default)]
struct Waiting {
    wakers: RefCell<Vec<Waker>>,
}

impl Waiting {
    fn wake_one(&self) {
        let next = self.wakers.borrow_mut().pop();
        if let Some(waker) = next {
            waker.wake();
        }
    }
    fn wake_all(&self) {
        for waker in self.wakers.take() {
            waker.wake();
        }
    }
}

impl Server {
    fn new(
        file: DmaFile,
        stream: &TcpStream,
        file_bytes: u64,
        flush: Flush,
        tuning: Tuning,
    ) -> Server {
        Server {
            file,
            socket: SockRef::from(stream).try_clone().expect("a clone"),
            flush,
            tuning,
            open: RefCell::default(),
            committing: RefCell::default(),
            first: Cell::new(0),
            next: Cell::new(0),
            place: RefCell::new(Place::new(file_bytes)),
            replies: RefCell::default(),
            out: RefCell::default(),
            work: Waiting::default(),
            room: Waiting::default(),
            hung_up: Cell::new(false),
        }
    }

    /// Bodies of whole frames go to the open group. False if it is full.
    fn gather(&self, inbox: &mut Inbox) -> Result<bool, String> {
        let mut open = self.open.borrow_mut();
        let (buffer, group) = open.get_or_insert_with(|| {
            let buffer = self.file.alloc_dma_buffer(self.tuning.group_bytes);
            (buffer, Group::default())
        });
        let buffer = buffer.as_bytes_mut();
        let mut fits = Ok(true);
        while inbox.next(|frame| {
            fits = group.append(buffer, frame);
            fits == Ok(true)
        })? {}
        fits
    }

    async fn next_group(&self) -> Option<(DmaBuffer, Group)> {
        poll_fn(|cx| {
            let mut open = self.open.borrow_mut();
            if open.as_ref().is_some_and(|(_, group)| group.messages > 0) {
                return Poll::Ready(open.take());
            }
            if self.hung_up.get() {
                return Poll::Ready(None);
            }
            self.work.wakers.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn committed(&self, number: u64) {
        let mut committing = self.committing.borrow_mut();
        committing[(number - self.first.get()) as usize].2 = true;
        let mut out = self.out.borrow_mut();
        while let Some((group, at, true)) = committing.front().copied() {
            self.replies.borrow_mut().append(group, at, &mut out);
            committing.pop_front();
            self.first.set(self.first.get() + 1);
        }
    }

    /// False if the socket did not take all.
    fn send(&self) -> bool {
        let mut out = self.out.borrow_mut();
        while !out.is_empty() {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            match self.socket.send_with_flags(&out, flags) {
                Ok(count) => drop(out.drain(..count)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
                // The client has gone; the receiver notices.
                Err(_) => out.clear(),
            }
        }
        true
    }
}

async fn receive_loop(server: &Server, stream: TcpStream) -> Result<(), String> {
    // SAFETY: the descriptor is a connected socket that nobody else owns.
    let mut stream = unsafe { glommio::net::TcpStream::from_raw_fd(stream.into_raw_fd()) };
    let mut inbox = Inbox::new(server.tuning.receive_bytes);
    loop {
        let count = match stream.read(inbox.room()).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) => count,
        };
        inbox.received(count);
        while !server.gather(&mut inbox)? {
            server.work.wake_one();
            poll_fn(|cx| {
                if server.open.borrow().is_none() {
                    return Poll::Ready(());
                }
                server.room.wakers.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            })
            .await;
        }
        server.work.wake_one();
        if count > 16 * 1024 {
            Timer::new(Duration::from_nanos(1)).await;
        }
    }
}

async fn commit_loop(server: Rc<Server>) -> Result<(), String> {
    while let Some((mut buffer, group)) = server.next_group().await {
        server.room.wake_one();
        let bytes = group.write_bytes();
        buffer.trim_to_size(bytes);
        let at = server.place.borrow_mut().take(bytes);
        server.committing.borrow_mut().push_back((group, at, false));
        let number = server.next.replace(server.next.get() + 1);
        let failed = |error| format!("a commit failed: {error}");
        let written = server.file.write_at(buffer, at).await.map_err(failed)?;
        if written != bytes {
            return Err(format!("{written} of {bytes} bytes were written"));
        }
        if server.flush == Flush::Sync {
            server.file.fdatasync().await.map_err(failed)?;
        }
        server.committed(number);
        while !server.send() {
            Timer::new(SOCKET_FULL_PAUSE).await;
        }
    }
    Ok(())
}
