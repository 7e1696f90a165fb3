//! The page behind the gateway of `make demo`: the laboratory's server as a program, on the port that is its argument.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use ropewalk_lab::TransferServer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: ropewalk-page PORT")?.parse()?;
    let any = SocketAddr::from(([0u16; 8], port));
    let _server = TransferServer::serve(TcpListener::bind(any)?, UdpSocket::bind(any)?)?;
    println!("listening on {port}");
    loop {
        std::thread::park();
    }
}
