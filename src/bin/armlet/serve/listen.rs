//! Connections: how many there are, and how long one may take.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::{Shutdown, shutdown, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::app::App;
use super::phase::{Phase, reached};
use super::problem::Problem;
use super::wire::Wire;
use crate::error::Failure;

/// Bytes of a request's head: the first line and all headers.
const HEAD: usize = 16 << 10;
const HEADERS: usize = 64;
/// How long what was sent may stay unread: then the connection is given up, and with it the answer.
const UNREAD: Duration = Duration::from_secs(60);
/// Bytes that the system keeps for a client which does not read them.
const SEND_BUFFER: usize = 64 << 10;
/// How long a client may be silent behind the last response, or not take it; in all it has as much time as for a request.
const LEAVE: Duration = Duration::from_secs(2);
/// The most bytes that are read of one who is turned away.
const SENT: u64 = 256 << 10;
/// How long nothing at all comes from a client, until it is asked whether it is there.
const SILENT: Duration = Duration::from_secs(30);

/// Sockets at all addresses of a host.
pub(super) fn bind(host: &str, port: u16) -> Result<Vec<StdListener>, Failure> {
    let fail = |e: io::Error| Failure::new(format!("cannot listen on {host} port {port}"), e);
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(fail)?.collect();
    let mut listeners: Vec<StdListener> = Vec::new();
    for address in addresses {
        // A host of several addresses has the same port on each.
        let port = listeners.first().and_then(|first| first.local_addr().ok()).map_or(port, |first| first.port());
        listeners.push(StdListener::bind(SocketAddr::new(address.ip(), port)).map_err(fail)?);
    }
    if listeners.is_empty() { Err(fail(io::ErrorKind::AddrNotAvailable.into())) } else { Ok(listeners) }
}

/// Serves connections until the server ends, and all of them have.
pub(super) async fn serve(app: Arc<App>, listeners: Vec<StdListener>, router: Router) -> io::Result<()> {
    let listen = |listener: StdListener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    let listeners = listeners.into_iter().map(listen).collect::<io::Result<Vec<_>>>()?;
    let most = app.limits.connections;
    let places = Arc::new(Semaphore::new(most));
    let mut draining = reached(&app.phase, Phase::Draining);
    while let Some(accepted) = poll_fn(|cx| match draining.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => {
            let ready = listeners.iter().find_map(|listener| match listener.poll_accept(cx) {
                Poll::Ready(accepted) => Some(accepted),
                Poll::Pending => None,
            });
            ready.map_or(Poll::Pending, |accepted| Poll::Ready(Some(accepted)))
        }
    })
    .await
    {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) => {
                // No file descriptors are left, or the client was gone already.
                log::warn!("a connection was not accepted: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match places.clone().try_acquire_owned() {
            Ok(place) => drop(tokio::spawn(connection(app.clone(), stream, router.clone(), place))),
            Err(_) => turn_away(stream),
        }
    }
    drop(listeners);
    // All places are free when all connections have ended.
    let _ = places.acquire_many(u32::try_from(most).unwrap_or(u32::MAX)).await;
    Ok(())
}

/// One connection, until it ends; when the server is about to, it has no further request.
async fn connection(app: Arc<App>, mut stream: TcpStream, router: Router, place: OwnedSemaphorePermit) {
    app.metrics.connections.add(1);
    if let Err(e) = prepare(&stream) {
        log::debug!("a connection's options: {e}");
    }
    let wrong = requests(&app, &mut stream, router).await;
    if let Some(problem) = &wrong {
        app.metrics.requests.add(1);
        app.metrics.refused.add(1);
        log::info!("no request: {} {}", problem.status.as_u16(), problem.message);
    }
    let mut draining = reached(&app.phase, Phase::Draining);
    let mut leave = pin!(timeout(app.limits.time, leave(&stream, wrong)));
    poll_fn(|cx| match leave.as_mut().poll(cx) {
        Poll::Pending => draining.as_mut().poll(cx),
        Poll::Ready(_) => Poll::Ready(()),
    })
    .await;
    app.metrics.connections.subtract(1);
    drop(place);
}

/// All requests of a connection; and what is wrong with what came last, if that is no request.
async fn requests(app: &App, stream: &mut TcpStream, router: Router) -> Option<Problem> {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(app.limits.time).max_buf_size(HEAD).max_headers(HEADERS);
    let mut connection = builder.serve_connection(TokioIo::new(Wire(stream)), TowerToHyperService::new(router));
    let mut draining = reached(&app.phase, Phase::Draining);
    let mut told = false;
    let ended = poll_fn(|cx| {
        if !told && draining.as_mut().poll(cx).is_ready() {
            told = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        Pin::new(&mut connection).poll(cx)
    });
    let error = ended.await.err()?;
    // What came behind the last request; an empty line there is nothing.
    let has_begun = connection.into_parts().read_buf.iter().any(|byte| !b"\r\n".contains(byte));
    log::debug!("a connection ended: {error}");
    match &error {
        e if e.is_parse_too_large() => {
            let message = format!(
                "The head of the request is larger than {HEAD} bytes, has more than {HEADERS} headers, or a Content-Length that is too large."
            );
            Some(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message).code("request_too_large"))
        }
        e if e.is_parse() => Some(Problem::invalid(format!("This is no request of HTTP/1 (without TLS): {e}."))),
        // A client that has asked nothing yet is told nothing.
        e if e.is_timeout() && has_begun => {
            Some(Problem::new(StatusCode::REQUEST_TIMEOUT, "The head of the request did not come in time."))
        }
        _ => None,
    }
}

/// Says what was wrong, and reads what is still on its way: to close a connection before that takes its last response from a
/// client that is still sending.
async fn leave(stream: &TcpStream, wrong: Option<Problem>) -> io::Result<()> {
    if let Some(problem) = wrong {
        let text = plain(&problem);
        let mut left = text.as_bytes();
        while !left.is_empty() {
            timeout(LEAVE, stream.writable()).await??;
            match stream.try_write(left) {
                Ok(written) => left = &left[written..],
                // It was not as ready as it seemed.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
    shutdown(stream, Shutdown::Write)?;
    let mut bytes = [0; 4096];
    loop {
        timeout(LEAVE, stream.readable()).await??;
        match stream.try_read(&mut bytes) {
            Ok(0) => return Ok(()),
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
            // Others have their turn, and the limit of time, while it comes faster than it is read.
            _ => yield_now().await,
        }
    }
}

/// Small pieces go at once. What a client does not acknowledge, or read, is given up.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_send_buffer_size(stream, SEND_BUFFER)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENT)?;
    sockopt::set_tcp_keepintvl(stream, SILENT / 3)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, u32::try_from(UNREAD.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

/// Tells a client that there are too many connections. It fits the socket's buffer, or the client hears nothing. Nobody waits
/// for it: what it has sent by now is read, since to close a connection with that unread takes the answer from it.
fn turn_away(stream: TcpStream) {
    // Without the runtime, which knows only later whether a new socket is ready.
    let Ok(mut stream) = stream.into_std() else { return };
    let _ = stream.write(plain(&Problem::unavailable("Too many connections.")).as_bytes());
    let _ = shutdown(&stream, Shutdown::Write);
    let _ = io::copy(&mut stream.take(SENT), &mut io::sink());
}

/// The last response of a connection, where there is no request.
fn plain(problem: &Problem) -> String {
    let body = problem.openai().to_string();
    let retry_after = problem.retry_after.map_or(String::new(), |seconds| format!("retry-after: {seconds}\r\n"));
    format!(
        "HTTP/1.1 {}\r\ncontent-type: application/json\r\n{retry_after}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        problem.status,
        body.len()
    )
}
