//! A small TCP server for what must be proven about a connection: that bytes arrive whole in both directions, and that
//! a web page behind the gateway can be read. It speaks three one-line commands:
//!
//! - `UP n`, then n octets: answers their SHA-256 in hex
//! - `DOWN n seed`: answers n octets of the stream that `seed` begins
//! - `GET ...`: answers a small HTTP page

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ring::digest::{Context as Sha, SHA256};

use crate::{
    error::{Context, LabError, Result},
    netns::Namespace,
};

/// What the page of the HTTP answer says.
pub const PAGE: &str =
    "<!doctype html><title>Behind the gateway</title><p>You reached the page behind the gateway.</p>\n";

/// A size that shows wraps and rekeys of buffers, and still takes about a second.
pub const TWENTY_MEGABYTES: u64 = 20_000_000;

const CHUNK: usize = 64 * 1024;

/// Speed of one direction, measured over the whole transfer.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    /// Octets moved.
    pub bytes: u64,
    /// From the first command to the last octet.
    pub elapsed: Duration,
}

impl Speed {
    /// Megabits per second.
    #[must_use]
    pub fn megabits(&self) -> f64 {
        // Sizes here are far below 2^52.
        #[allow(clippy::cast_precision_loss)]
        let bits = (self.bytes * 8) as f64;
        bits / 1e6 / self.elapsed.as_secs_f64()
    }
}

/// The server: TCP transfers and pages, and a UDP echo on the same port. It ends when dropped.
#[derive(Debug)]
pub struct TransferServer {
    stop: Arc<AtomicBool>,
}

impl TransferServer {
    /// Starts it inside a namespace, on every address of both families.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub fn start(namespace: &Namespace, port: u16) -> Result<Self> {
        let any = SocketAddr::from(([0u16; 8], port)); // dual-stack: net.ipv6.bindv6only is 0 in a new namespace
        Self::serve(namespace.listen_tcp(any)?, namespace.bind_udp(any)?)
    }

    /// Starts it on sockets that are there already.
    ///
    /// # Errors
    /// When a socket option is refused.
    pub fn serve(listener: TcpListener, echo: UdpSocket) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        listener.set_nonblocking(true).context(|| "listener".to_owned())?;
        echo.set_read_timeout(Some(Duration::from_millis(100))).context(|| "echo".to_owned())?;
        thread::spawn({
            let stop = Arc::clone(&stop);
            move || accept(&listener, &stop)
        });
        thread::spawn({
            let stop = Arc::clone(&stop);
            move || echo_datagrams(&echo, &stop)
        });
        Ok(Self { stop })
    }
}

impl Drop for TransferServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Sends `bytes` octets to the server and checks that it received exactly them.
///
/// # Errors
/// When the connection fails or stalls for `patience`, or the checksums differ.
pub fn upload(from: &Namespace, server: SocketAddr, bytes: u64, patience: Duration) -> Result<Speed> {
    let mut stream = open(from, server, patience)?;
    let started = Instant::now();
    let mut sum = Sha::new(&SHA256);
    let mut source = Stream::new(bytes ^ 0x5eed);
    let sending = |error| LabError::Io { what: format!("upload to {server}"), source: error };
    stream.write_all(format!("UP {bytes}\n").as_bytes()).map_err(sending)?;
    let mut left = bytes;
    let mut buffer = vec![0; CHUNK];
    while let Some(chunk) = next_chunk(&mut buffer, &mut left) {
        source.fill(chunk);
        sum.update(chunk);
        stream.write_all(chunk).map_err(sending)?;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(sending)?;
    let elapsed = started.elapsed();
    let expected = hex(sum.finish().as_ref());
    if answer.trim() != expected {
        return Err(LabError::Transfer(format!(
            "uploaded {expected}, the server received {}",
            answer.trim()
        )));
    }
    Ok(Speed { bytes, elapsed })
}

/// Fetches `bytes` octets from the server and checks that they are the ones it sent.
///
/// # Errors
/// When the connection fails or stalls for `patience`, or the checksums differ.
pub fn download(to: &Namespace, server: SocketAddr, bytes: u64, patience: Duration) -> Result<Speed> {
    let mut stream = open(to, server, patience)?;
    let started = Instant::now();
    let seed = bytes ^ 0xd0_d0;
    let receiving = |error| LabError::Io { what: format!("download from {server}"), source: error };
    stream.write_all(format!("DOWN {bytes} {seed}\n").as_bytes()).map_err(receiving)?;
    let mut expected = Sha::new(&SHA256);
    let mut received = Sha::new(&SHA256);
    let mut source = Stream::new(seed);
    let mut left = bytes;
    let mut buffer = vec![0; CHUNK];
    let mut reference = vec![0; CHUNK];
    while let Some(chunk) = next_chunk(&mut buffer, &mut left) {
        stream.read_exact(chunk).map_err(receiving)?;
        received.update(chunk);
        let reference = reference.get_mut(..chunk.len()).unwrap_or_default();
        source.fill(reference);
        expected.update(reference);
    }
    let elapsed = started.elapsed();
    let (expected, received) = (hex(expected.finish().as_ref()), hex(received.finish().as_ref()));
    if expected != received {
        return Err(LabError::Transfer(format!("the server sent {expected}, {received} came")));
    }
    Ok(Speed { bytes, elapsed })
}

/// Reads the page over HTTP.
///
/// # Errors
/// When the connection fails; a wrong answer is returned as it is.
pub fn fetch_page(from: &Namespace, server: SocketAddr, patience: Duration) -> Result<String> {
    let mut stream = open(from, server, patience)?;
    let mut answer = String::new();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: behind\r\nConnection: close\r\n\r\n")
        .and_then(|()| stream.read_to_string(&mut answer))
        .context(|| format!("page from {server}"))?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or(answer))
}

/// Sends one datagram to the server's echo and says whether it came back.
///
/// # Errors
/// When the socket cannot be made.
pub fn udp_echo(from: &Namespace, server: SocketAddr, size: usize, patience: Duration) -> Result<bool> {
    let local =
        if server.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0u16; 8], 0)) };
    let socket = from.bind_udp(local)?;
    socket.set_read_timeout(Some(patience)).context(|| "echo".to_owned())?;
    let mut sent = vec![0; size];
    Stream::new(7).fill(&mut sent);
    if socket.send_to(&sent, server).is_err() {
        return Ok(false);
    }
    let mut received = vec![0; size + 1];
    let Ok((length, _)) = socket.recv_from(&mut received) else { return Ok(false) };
    received.truncate(length);
    Ok(received == sent)
}

fn open(namespace: &Namespace, server: SocketAddr, patience: Duration) -> Result<TcpStream> {
    let stream = namespace.connect_tcp(server, patience)?;
    stream
        .set_read_timeout(Some(patience))
        .and_then(|()| stream.set_write_timeout(Some(patience)))
        .context(|| "time limits of a connection".to_owned())?;
    Ok(stream)
}

fn accept(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, peer)) => {
                thread::spawn(move || {
                    if let Err(error) = serve(stream) {
                        tracing::debug!(%peer, %error, "transfer ended");
                    }
                });
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn serve(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut out = stream.try_clone()?;
    let mut input = BufReader::with_capacity(CHUNK, stream);
    let mut line = String::new();
    input.read_line(&mut line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |word: Option<&&str>| word.and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
    match words.first().copied() {
        Some("UP") => {
            let mut sum = Sha::new(&SHA256);
            let mut left = number(words.get(1));
            let mut buffer = vec![0; CHUNK];
            while let Some(chunk) = next_chunk(&mut buffer, &mut left) {
                input.read_exact(chunk)?;
                sum.update(chunk);
            }
            writeln!(out, "{}", hex(sum.finish().as_ref()))
        }
        Some("DOWN") => {
            let mut source = Stream::new(number(words.get(2)));
            let mut left = number(words.get(1));
            let mut buffer = vec![0; CHUNK];
            while let Some(chunk) = next_chunk(&mut buffer, &mut left) {
                source.fill(chunk);
                out.write_all(chunk)?;
            }
            Ok(())
        }
        Some("GET") => {
            let mut header = String::new();
            while input.read_line(&mut header)? > 2 {
                header.clear();
            }
            write!(
                out,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{PAGE}",
                PAGE.len()
            )
        }
        _ => Ok(()),
    }
}

fn echo_datagrams(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
        let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), peer);
    }
}

/// The part of `buffer` that is still to be moved, and less in `left`.
fn next_chunk<'a>(buffer: &'a mut [u8], left: &mut u64) -> Option<&'a mut [u8]> {
    if *left == 0 {
        return None;
    }
    let size = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left -= u64::try_from(size).unwrap_or(*left);
    buffer.get_mut(..size)
}

/// A reproducible stream of octets that does not compress or repeat (xorshift64*).
struct Stream {
    state: u64,
}

impl Stream {
    fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(2).wrapping_add(1) }
    }

    /// Fills whole chunks; both ends use the same chunk size, so that they stay in step.
    fn fill(&mut self, chunk: &mut [u8]) {
        for word in chunk.chunks_mut(8) {
            self.state ^= self.state >> 12;
            self.state ^= self.state << 25;
            self.state ^= self.state >> 27;
            let bytes = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            for (octet, value) in word.iter_mut().zip(bytes) {
                *octet = value;
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
