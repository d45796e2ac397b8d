//! A minimal HTTP client for the admin port of a process. It needs no certificates.

use std::{
    io::{Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs},
    time::Duration,
};

use anyhow::{Context, bail};
use genfleet_core::admin::AdminAddr;

/// The maximum length of an answer in bytes; the rest is not read.
const ANSWER_READ: u64 = 64 * 1024;

/// Returns the address at which a process that listens at `address` can be reached from this machine.
pub fn reachable(address: &AdminAddr) -> String {
    let written = address.to_string();
    let Ok(mut address) = written.parse::<SocketAddr>() else { return written };
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address.to_string()
}

/// Sends a GET request and returns status and body. Fails if there is no answer, or if the answer is not HTTP. Blocks.
pub fn get(host: &str, path: &str, timeout: Duration) -> anyhow::Result<(u16, String)> {
    let address = host.to_socket_addrs()?.next().context("the name has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_READ).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    let Some((status, (_, body))) = status.zip(answer.split_once("\r\n\r\n")) else { bail!("the answer is not HTTP") };
    Ok((status, body.to_owned()))
}
