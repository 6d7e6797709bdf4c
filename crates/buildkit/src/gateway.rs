//! A build that its client drives: what it has solved so far, and what it returns.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{self as api, result};
use bollard_buildkit_proto::pb;
use skiff_build::{BuildResult, Ref, Refs};
use tokio::sync::watch;
use tonic::Status;

/// More references than any client makes.
const LIMIT: usize = 10_000;

/// What a client has returned: the build's result, or its own error.
type Returned = Result<BuildResult, Status>;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Gateway {
    refs: Mutex<HashMap<String, Ref>>,
    returned: watch::Sender<Option<Returned>>,
    /// Definitions that came with the build, for `Inputs`.
    pub inputs: HashMap<String, pb::Definition>,
}

impl Gateway {
    pub fn new(inputs: HashMap<String, pb::Definition>) -> Self {
        Self { refs: Mutex::default(), returned: watch::Sender::new(None), inputs }
    }

    /// Finds a reference.
    pub fn get(&self, id: &str) -> Result<Ref, Status> {
        let refs = self.refs.lock().unwrap_or_else(PoisonError::into_inner);
        refs.get(id).cloned().ok_or_else(|| Status::not_found(format!("no such ref: {id}")))
    }

    /// Keeps a reference; returns how the client names it.
    fn keep(&self, reference: Ref) -> Result<api::Ref, Status> {
        if reference.is_scratch() {
            // Nothing needs no name.
            return Ok(api::Ref { id: String::new(), def: None });
        }
        let def = Some(reference.definition().clone());
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| Status::internal(error.to_string()))?;
        let id = hex::encode(random);
        let mut refs = self.refs.lock().unwrap_or_else(PoisonError::into_inner);
        if refs.len() >= LIMIT {
            return Err(Status::resource_exhausted("too many refs"));
        }
        refs.insert(id.clone(), reference);
        Ok(api::Ref { id, def })
    }

    /// Writes a result for the client.
    pub fn result(&self, result: BuildResult) -> Result<api::Result, Status> {
        let refs = match result.refs {
            Refs::None => None,
            Refs::Single(reference) => Some(result::Result::Ref(self.keep(reference)?)),
            Refs::Map(refs) => {
                let mut kept = HashMap::new();
                for (platform, reference) in refs {
                    kept.insert(platform, self.keep(reference)?);
                }
                Some(result::Result::Refs(api::RefMap { refs: kept }))
            }
        };
        Ok(api::Result {
            metadata: result.metadata.into_iter().collect(),
            attestations: HashMap::new(),
            result: refs,
        })
    }

    /// Reads a result of the client's.
    fn read(&self, result: api::Result) -> Result<BuildResult, Status> {
        let named = |id: &str| if id.is_empty() { Ok(None) } else { self.get(id).map(Some) };
        let all = |refs: Vec<(String, String)>| {
            let mut found = std::collections::BTreeMap::new();
            for (platform, id) in refs {
                if let Some(reference) = named(&id)? {
                    found.insert(platform, reference);
                }
            }
            Ok::<_, Status>(Refs::Map(found))
        };
        let one = |id: &str| Ok::<_, Status>(named(id)?.map_or(Refs::None, Refs::Single));
        let refs = match result.result {
            None => Refs::None,
            Some(result::Result::RefDeprecated(id)) => one(&id)?,
            Some(result::Result::Ref(reference)) => one(&reference.id)?,
            Some(result::Result::RefsDeprecated(map)) => all(map.refs.into_iter().collect())?,
            Some(result::Result::Refs(map)) => {
                all(map.refs.into_iter().map(|(platform, reference)| (platform, reference.id)).collect())?
            }
        };
        Ok(BuildResult { refs, metadata: result.metadata.into_iter().collect() })
    }

    /// Takes what the client returns; the first time counts.
    pub fn give_back(&self, request: api::ReturnRequest) -> Result<(), Status> {
        let returned = match request.error {
            Some(error) => Err(crate::fault::from_rpc(error)),
            None => Ok(self.read(request.result.unwrap_or_default())?),
        };
        self.returned.send_if_modified(|place| {
            let first = place.is_none();
            if first {
                *place = Some(returned);
            }
            first
        });
        Ok(())
    }

    /// Waits for what the client returns.
    pub async fn returned(&self) -> Returned {
        let mut returned = self.returned.subscribe();
        let returned = returned.wait_for(Option::is_some).await;
        let returned = returned.ok().and_then(|returned| returned.clone());
        returned.unwrap_or_else(|| Err(Status::cancelled("context canceled")))
    }
}
