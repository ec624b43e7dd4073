//! Going on with what comes: each queue has one pull that its broker holds until there is a
//! message. One thread per broker reads answers; one place decides.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::Done;
use super::link::{Link, Trouble, answered, connect, framed};
use super::messages::is_pulled;
use super::read::{Reader, Taken, lines};
use super::sheet::{Lines, print};
use crate::remoting::code::request;
use crate::remoting::command::Command;
use crate::remoting::frame::{frame_len, split};
use crate::shard::signals;

/// How long a broker holds a pull, as a consumer asks for (`brokerSuspendMaxTimeMillis`).
const HOLD_MS: u32 = 15_000;
/// Messages printed and committed at a time while there are many.
const PAGE: u32 = 32;

enum Event {
    /// A broker has answered.
    Frame(String, Vec<u8>),
    /// It answers no more.
    Lost(String, String),
    /// Somebody wants it to end.
    Stop,
}

/// What is left to print, and how.
struct Tail<'a> {
    reader: Reader<'a>,
    lines: Lines,
    /// Messages still wanted, if there is a limit.
    left: Option<u32>,
}

/// Prints messages as they come until a signal, a closed output, or enough of them.
pub fn follow(
    link: &mut Link,
    reader: Reader<'_>,
    count: Option<u32>,
    json: bool,
) -> Result<Done, Trouble> {
    let (tell, events) = channel();
    let stop = tell.clone();
    // Before any other thread is there: it inherits that the signals are blocked.
    signals::watch(move || {
        let _ = stop.send(Event::Stop);
        false
    })
    .map_err(Trouble::Wrong)?;
    let mut tail = Tail {
        reader,
        lines: lines(json),
        left: count,
    };
    loop {
        let page = tail
            .reader
            .page(link, tail.left.unwrap_or(PAGE).min(PAGE))?;
        let is_last = page.is_empty();
        if !tail.show(link, page)? || events.try_recv().is_ok() {
            return Ok(Done::Printed);
        }
        if is_last {
            break;
        }
    }
    tail.wait(link, tell, &events)?;
    Ok(Done::Printed)
}

impl Tail<'_> {
    /// Prints messages and commits them then. False if that was all.
    fn show(&mut self, link: &mut Link, page: Vec<(usize, Taken)>) -> Result<bool, Trouble> {
        let mut goes_on = true;
        for (lane, taken) in page {
            goes_on = print(&self.lines.line(&taken.row));
            if !goes_on {
                break;
            }
            self.reader.lanes[lane].done = taken.offset + 1;
            if let Some(left) = &mut self.left {
                *left -= 1;
                goes_on = *left > 0;
            }
            if !goes_on {
                break;
            }
        }
        self.reader.commit(link)?;
        Ok(goes_on)
    }

    fn wait(
        &mut self,
        link: &mut Link,
        tell: Sender<Event>,
        events: &Receiver<Event>,
    ) -> Result<(), Trouble> {
        let mut sockets: BTreeMap<String, TcpStream> = BTreeMap::new();
        for lane in &self.reader.lanes {
            if !sockets.contains_key(&lane.addr) {
                let socket = open(&lane.addr, link.timeout(), tell.clone());
                let socket = socket.map_err(|error| lost(&lane.addr, &error))?;
                sockets.insert(lane.addr.clone(), socket);
            }
        }
        for lane in 0..self.reader.lanes.len() {
            self.ask(&mut sockets, lane)?;
        }
        let patience = Duration::from_millis(HOLD_MS.into()) + link.timeout();
        loop {
            let mut next = match events.recv_timeout(patience) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    let words = format!("no answer within {} ms", patience.as_millis());
                    return Err(lost(&self.reader.lanes[0].addr, &words));
                }
            };
            let (mut page, mut free) = (Vec::new(), Vec::new());
            while let Some(event) = next {
                let (addr, bytes) = match event {
                    Event::Stop => return Ok(()),
                    Event::Lost(addr, why) => return Err(lost(&addr, &why)),
                    Event::Frame(addr, bytes) => (addr, bytes),
                };
                let opaque = opaque_of(&bytes);
                let answer = answered(&addr, &bytes, is_pulled)?;
                let lane = opaque.and_then(|opaque| usize::try_from(opaque).ok());
                if let Some(at) = lane.filter(|at| *at < self.reader.lanes.len()) {
                    let lane = &mut self.reader.lanes[at];
                    lane.take(&answer)?;
                    while let Some(taken) = lane.take_waiting() {
                        page.push((at, taken));
                    }
                    free.push(at);
                }
                next = events.try_recv().ok();
            }
            page.sort_by_key(|(_, taken)| taken.stored_ms);
            if !self.show(link, page)? {
                return Ok(());
            }
            for lane in free {
                self.ask(&mut sockets, lane)?;
            }
        }
    }

    /// Sends the next pull of a lane; its number comes back with the answer.
    fn ask(&self, sockets: &mut BTreeMap<String, TcpStream>, lane: usize) -> Result<(), Trouble> {
        let fields = self.reader.wish(lane, PAGE, HOLD_MS).fields();
        let frame = framed(lane as i32, request::PULL_MESSAGE, &fields, b"");
        let addr = &self.reader.lanes[lane].addr;
        let socket = sockets.get_mut(addr).expect("opened for each lane");
        socket.write_all(&frame).map_err(|error| lost(addr, &error))
    }
}

fn lost(addr: &str, why: &impl std::fmt::Display) -> Trouble {
    Trouble::Unreachable {
        addr: addr.to_owned(),
        why: why.to_string(),
    }
}

fn opaque_of(bytes: &[u8]) -> Option<i32> {
    let command = split(bytes)
        .ok()
        .and_then(|frame| Command::decode(frame).ok());
    command.map(|command| command.opaque)
}

/// Connects, and has a thread read what comes.
fn open(addr: &str, timeout: Duration, tell: Sender<Event>) -> std::io::Result<TcpStream> {
    let socket = connect(addr, timeout)?;
    socket.set_nodelay(true)?;
    let (mut from, name) = (socket.try_clone()?, addr.to_owned());
    std::thread::Builder::new()
        .name("answers".to_owned())
        .spawn(move || {
            let why = frames(&mut from, &name, &tell).err();
            let why = why.map_or_else(|| "it closed".to_owned(), |error| error.to_string());
            let _ = tell.send(Event::Lost(name, why));
        })?;
    Ok(socket)
}

fn frames(from: &mut TcpStream, addr: &str, tell: &Sender<Event>) -> std::io::Result<()> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    loop {
        while let Some(len) = frame_len(&bytes).map_err(std::io::Error::other)?
            && len <= bytes.len()
        {
            let rest = bytes.split_off(len);
            let frame = std::mem::replace(&mut bytes, rest);
            let command = split(&frame)
                .ok()
                .and_then(|frame| Command::decode(frame).ok());
            // The broker may ask its clients things; that is not for us.
            let is_answer = command.is_none_or(|command| command.is_response());
            if is_answer && tell.send(Event::Frame(addr.to_owned(), frame)).is_err() {
                return Ok(());
            }
        }
        match from.read(&mut chunk)? {
            0 => return Ok(()),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}
