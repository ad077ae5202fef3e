//! A client's stream, as hyper has it. To what is no request hyper gives a response of its own, without a body, and nothing can
//! be hooked in there: its bytes are left out here, and `listen` says what is wrong in their place, as the API does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that the head of such a response has at most: a status, three short headers.
const OWN: usize = 256;

pub(super) struct Wire<'s>(pub(super) &'s mut TcpStream);

impl AsyncRead for Wire<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, to)
    }
}

impl AsyncWrite for Wire<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let bytes = match own(bytes) {
            Some(0) => return Poll::Ready(Ok(bytes.len())),
            // What was asked before is answered first.
            Some(start) => &bytes[..start],
            None => bytes,
        };
        Pin::new(&mut *self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    /// Whoever has the stream ends it, when the client was told what is wrong.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Where a response that is hyper's own begins. It is the last one of a connection, thus at the end of what is written; and a
/// client's error with no body, which the server has none of: each of its own has a type.
fn own(bytes: &[u8]) -> Option<usize> {
    let from = bytes.len().saturating_sub(OWN);
    let end = bytes[from..].strip_suffix(b"\r\n\r\n")?;
    let start = end.windows(7).rposition(|window| window == b"HTTP/1.")?;
    let head = str::from_utf8(&end[start..]).ok()?;
    let mut lines = head.split("\r\n");
    let is_error = lines.next()?.split(' ').nth(1)?.starts_with('4');
    let (mut is_empty, mut has_type) = (false, false);
    for line in lines {
        is_empty |= line == "content-length: 0";
        has_type |= line.starts_with("content-type:");
    }
    (is_error && is_empty && !has_type).then_some(from + start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_of_hyper_alone_are_left_out() {
        let own_head = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
        let before =
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 999\r\n\r\n{}", "x".repeat(999));
        assert_eq!(own(own_head.as_bytes()), Some(0));
        assert_eq!(own(format!("{before}{own_head}").as_bytes()), Some(before.len()));
        for ours in [
            &before,
            // A response whose body is on its way, one without a body, and a text that looks like one.
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n",
            "HTTP/1.1 204 No Content\r\naccess-control-allow-methods: GET\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "52\r\ndata: HTTP/1.1 400 Bad Request\\r\\ncontent-length: 0\\r\\n\\r\\n\r\n",
            "\r\n\r\n",
            "",
        ] {
            assert_eq!(own(ours.as_bytes()), None, "{ours}");
        }
    }
}
