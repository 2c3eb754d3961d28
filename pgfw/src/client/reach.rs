//! Whether what a lease opens can be reached from here, and what is the matter where it cannot.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::ClientError;

/// For a SYN and one that is sent again after a second, and a third after two more.
const PATIENCE: Duration = Duration::from_secs(4);

/// A lease opens one address. Where the way out of this network has several, that is what has to be said: psql would only
/// wait for a connection that is never answered.
///
/// # Errors
/// [`ClientError::OtherWayOut`] where nothing comes back; a server that is down answers, and is psql's to speak of.
pub(super) async fn server(leased: IpAddr, server: SocketAddr) -> Result<(), ClientError> {
    match tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(server)).await {
        // The connection itself is of no use; PostgreSQL says nothing of one that ends without a word.
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.kind() != std::io::ErrorKind::TimedOut => Ok(()),
        Ok(Err(_)) | Err(_) => Err(ClientError::OtherWayOut { leased, server }),
    }
}
