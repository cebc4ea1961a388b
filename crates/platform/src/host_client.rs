//! The API role's end of the conversation with the host role.
//!
//! One task reads packets and hands replies to whoever asked and events to the fleet. Requests are sent from the
//! caller's own task when the socket has room, which it nearly always has: a restore should not wait for another task
//! to be scheduled. When it has none, packets queue and a second task sends them, in the same order: a thaw must
//! never overtake the freeze before it.
//!
//! **The host role's death fails every pending request and every later one**; [`HostClient::closed`] tells the owner.
//! Deliberately absent: starting the host role again, which is the binary's decision.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use host::protocol::{
    Answer, Command, Event, Failure, FailureKind, FromHost, MESSAGE_BYTES_MAX, Reply, Request,
};
use linux::channel::Channel;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Packets that may wait for room in the socket. Each environment has few requests in flight at a time.
const OUTBOX_PACKETS_MAX: usize = 16 * 1024;

/// An event of the host role with the descriptors that came with it.
#[derive(Debug)]
pub struct HostEvent {
    /// What happened.
    pub event: Event,
    /// The descriptors, in the order that the protocol gives.
    pub descriptors: Vec<OwnedFd>,
}

/// The events of the host role, in order. The end of the stream is the host role's death.
pub type HostEvents = mpsc::UnboundedReceiver<HostEvent>;

/// A handle for asking the host role. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HostClient {
    inner: Arc<Inner>,
}

/// The reply to a request that was sent.
#[derive(Debug)]
pub struct PendingReply(oneshot::Receiver<Result<Answer, Failure>>);

#[derive(Debug)]
struct Inner {
    channel: Channel,
    /// A second descriptor of the same socket, for the runtime to watch.
    readiness: UnixStream,
    state: Mutex<State>,
    outbox_waits: Notify,
    closed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    id_last: u64,
    waiting: HashMap<u64, oneshot::Sender<Result<Answer, Failure>>>,
    outbox: VecDeque<Vec<u8>>,
    dead: bool,
}

impl HostClient {
    /// Takes the API role's end of the channel and starts the tasks that serve it. Must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the channel cannot be made nonblocking or registered with the runtime.
    pub fn start(channel: Channel) -> io::Result<(Self, HostEvents)> {
        channel.set_nonblocking(true)?;
        let second = channel.as_fd().try_clone_to_owned()?;
        let inner = Arc::new(Inner {
            channel,
            readiness: UnixStream::from_std(second.into())?,
            state: Mutex::default(),
            outbox_waits: Notify::new(),
            closed: watch::Sender::new(false),
        });
        // The receiver is the fleet's one pump. What it holds is bounded by the host role: it announces a sandbox only
        // when the pool has room for it, and one exit for each sandbox.
        let (events, receiver) = mpsc::unbounded_channel();
        tokio::spawn(read_packets(inner.clone(), events));
        tokio::spawn(write_packets(inner.clone()));
        Ok((Self { inner }, receiver))
    }

    /// Sends a request at once; the reply is awaited separately, so that the caller can work in between.
    pub fn send(&self, command: Command) -> PendingReply {
        let (sender, receiver) = oneshot::channel();
        self.inner.send(command, sender);
        PendingReply(receiver)
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// The host role's refusal, or that it is gone.
    pub async fn call(&self, command: Command) -> Result<Answer, Failure> {
        self.send(command).await
    }

    /// Resolves when the host role is gone.
    pub async fn closed(&self) {
        let mut closed = self.inner.closed.subscribe();
        // The sender lives in `inner`, which `self` keeps.
        let _ = closed.wait_for(|closed| *closed).await;
    }
}

impl Future for PendingReply {
    type Output = Result<Answer, Failure>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context).map(|received| received.unwrap_or_else(|_| Err(gone())))
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    fn send(&self, command: Command, sender: oneshot::Sender<Result<Answer, Failure>>) {
        let mut state = self.state();
        if state.dead {
            return;
        }
        state.id_last += 1;
        let id = state.id_last;
        let packet = match encode(&Request { id, command }) {
            Ok(packet) if state.outbox.len() < OUTBOX_PACKETS_MAX => packet,
            Ok(_) => {
                let message = "ask the host role: too many requests are waiting for it".to_owned();
                let _ = sender.send(Err(Failure { kind: FailureKind::Exhausted, message }));
                return;
            }
            Err(failure) => {
                let _ = sender.send(Err(failure));
                return;
            }
        };
        state.waiting.insert(id, sender);
        state.outbox.push_back(packet);
        if !self.flush(&mut state) {
            self.outbox_waits.notify_one();
        }
    }

    /// Sends what the socket takes. False when packets are left.
    fn flush(&self, state: &mut State) -> bool {
        while let Some(packet) = state.outbox.front() {
            match self.channel.send(packet, &[]) {
                Ok(()) => drop(state.outbox.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => {
                    tracing::error!(%error, "send to the host role");
                    self.die(state);
                }
            }
        }
        true
    }

    fn die(&self, state: &mut State) {
        state.dead = true;
        // Dropping the senders fails whoever waits.
        state.waiting.clear();
        state.outbox.clear();
        self.closed.send_replace(true);
        self.outbox_waits.notify_one();
    }

    fn resolve(&self, reply: Reply) {
        let Some(sender) = self.state().waiting.remove(&reply.id) else {
            tracing::warn!(id = reply.id, "the host role answered a request that nobody made");
            return;
        };
        // The caller may have given up on the reply.
        let _ = sender.send(reply.result);
    }
}

fn encode(request: &Request) -> Result<Vec<u8>, Failure> {
    let packet = serde_json::to_vec(request).map_err(|error| Failure {
        kind: FailureKind::Internal,
        message: format!("encode a request: {error}"),
    })?;
    if packet.len() > MESSAGE_BYTES_MAX {
        let message = format!(
            "ask the host role: a request of {} bytes is over the limit of {MESSAGE_BYTES_MAX} bytes",
            packet.len()
        );
        return Err(Failure { kind: FailureKind::Exhausted, message });
    }
    Ok(packet)
}

fn gone() -> Failure {
    let message = "the host role has ended; restart the server".to_owned();
    Failure { kind: FailureKind::Internal, message }
}

async fn read_packets(inner: Arc<Inner>, events: mpsc::UnboundedSender<HostEvent>) {
    loop {
        let receive = || inner.channel.receive(MESSAGE_BYTES_MAX);
        let received = inner.readiness.async_io(Interest::READABLE, receive).await;
        let message = match received {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "receive from the host role");
                break;
            }
        };
        match serde_json::from_slice(&message.bytes) {
            Ok(FromHost::Reply(reply)) => inner.resolve(reply),
            Ok(FromHost::Event(event)) => {
                // The fleet may already have shut down.
                let _ = events.send(HostEvent { event, descriptors: message.descriptors });
            }
            Err(error) => tracing::error!(%error, "decode a packet of the host role; ignored"),
        }
    }
    inner.die(&mut inner.state());
}

async fn write_packets(inner: Arc<Inner>) {
    loop {
        inner.outbox_waits.notified().await;
        let flush = || match inner.flush(&mut inner.state()) {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        };
        if inner.readiness.async_io(Interest::WRITABLE, flush).await.is_err() || inner.state().dead {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::protocol::SandboxId;

    fn receive(channel: &Channel) -> Request {
        serde_json::from_slice(&channel.receive(MESSAGE_BYTES_MAX).unwrap().unwrap().bytes).unwrap()
    }

    fn reply(channel: &Channel, id: u64, result: Result<Answer, Failure>) {
        let packet = serde_json::to_vec(&FromHost::Reply(Reply { id, result })).unwrap();
        channel.send(&packet, &[]).unwrap();
    }

    #[tokio::test]
    async fn replies_find_their_requests_in_any_order() {
        let (ours, theirs) = Channel::pair().unwrap();
        let (client, _events) = HostClient::start(ours).unwrap();
        let first = client.send(Command::Freeze { sandbox: SandboxId(1) });
        let second = client.send(Command::Usage { sandbox: SandboxId(2) });
        let (a, b) = (receive(&theirs), receive(&theirs));
        reply(&theirs, b.id, Ok(Answer::Usage { memory_peak_mib: 7 }));
        reply(&theirs, a.id, Ok(Answer::Done));
        assert!(matches!(second.await, Ok(Answer::Usage { memory_peak_mib: 7 })));
        assert!(matches!(first.await, Ok(Answer::Done)));
    }

    #[tokio::test]
    async fn death_of_the_host_fails_pending_and_later_requests() {
        let (ours, theirs) = Channel::pair().unwrap();
        let (client, mut events) = HostClient::start(ours).unwrap();
        let pending = client.send(Command::Freeze { sandbox: SandboxId(1) });
        drop(theirs);
        assert_eq!(pending.await.unwrap_err().kind, FailureKind::Internal);
        client.closed().await;
        assert!(client.call(Command::Thaw { sandbox: SandboxId(1) }).await.is_err());
        assert!(events.recv().await.is_none());
    }

    #[tokio::test]
    async fn requests_beyond_the_sockets_room_wait_and_keep_their_order() {
        let (ours, theirs) = Channel::pair().unwrap();
        let (client, _events) = HostClient::start(ours).unwrap();
        let replies: Vec<_> =
            (0..5000).map(|number| client.send(Command::Kill { sandbox: SandboxId(number) })).collect();
        let host = std::thread::spawn(move || {
            for number in 0..5000 {
                let request = receive(&theirs);
                assert!(matches!(request.command, Command::Kill { sandbox } if sandbox.0 == number));
                reply(&theirs, request.id, Ok(Answer::Done));
            }
        });
        for reply in replies {
            reply.await.unwrap();
        }
        host.join().unwrap();
    }
}
