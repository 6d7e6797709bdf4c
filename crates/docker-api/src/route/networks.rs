//! Networks.

use http::StatusCode;

use super::{Answer, Call, page_not_found};
use crate::backend::InspectNetwork;
use crate::body;
use crate::error::Result;
use crate::shape;

const LIST_FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

pub(super) async fn route(call: Call, path: &[&str]) -> Result<Answer> {
    match (call.method.as_str(), path) {
        // Clients differ on the slash at the end.
        ("GET", [] | [""]) => {
            let networks = call.backend.list_networks(call.query.filters(LIST_FILTERS)?).await?;
            Ok(body::json(StatusCode::OK, &shape::network_list(networks, call.version)?)?.into())
        }
        ("GET", [id]) => {
            let options = InspectNetwork {
                verbose: call.query.flag("verbose"),
                scope: call.query.filled("scope").map(str::to_owned),
            };
            let network = call.backend.inspect_network(id, options).await?;
            Ok(body::json(StatusCode::OK, &shape::network(network, call.version)?)?.into())
        }
        _ => Err(page_not_found()),
    }
}
