//! A policy and what estimates values beside it, as one set of variables.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};

use super::collate::Batch;
use super::session::Session;
use crate::config::{OnlineKeys, ValueNetwork};
use crate::model::Trainable;
use crate::model::gpt2::Gpt2;
use crate::model::reward::RewardModel;
use crate::ops::GradientSums;
use crate::{Error, Result};

/// Where a checkpoint keeps a value network of its own
const VALUE_FOLDER: &str = "value_model";

/// What estimates the value of the state before each token
pub enum Critic {
    /// A network of its own
    Separate(Box<RewardModel>),
    /// (1, C), on the policy's hidden states
    Shared(Var),
    /// No network: every value is 0
    None,
}

/// Policy and value network as one set of variables
pub struct Actor {
    /// The policy
    pub policy: Gpt2,
    /// What estimates values
    pub critic: Critic,
    /// The policy's weights without gradients
    pub view: Gpt2,
    critic_view: Option<RewardModel>,
    /// The policy's, then the critic's under `value.`
    vars: Vec<(String, Var)>,
    sums: Arc<GradientSums>,
}

impl Actor {
    /// With the policy that the session names and this critic, which starts from `value_model` where one is named
    pub fn open(
        session: &Session,
        online: &OnlineKeys,
        network: Option<ValueNetwork>,
        value_model: Option<&String>,
    ) -> Result<Self> {
        let policy = session.load_model()?;
        let critic = match network {
            Some(ValueNetwork::Shared) => {
                Critic::Shared(Var::zeros((1, policy.config().n_embd), DType::F32, &Device::Cpu)?)
            }
            Some(ValueNetwork::Separate) => Critic::Separate(Box::new(value_network(session, online, value_model)?)),
            Some(ValueNetwork::Field) | None => Critic::None,
        };
        let (own, sums) = match &critic {
            Critic::Separate(model) => (model.vars().to_vec(), model.gradients().clone()),
            Critic::Shared(head) => (vec![("head.weight".to_owned(), head.clone())], Arc::new(GradientSums::new(1))),
            Critic::None => (Vec::new(), Arc::default()),
        };
        let own = own.into_iter().map(|(name, var)| (format!("value.{name}"), var));
        let vars = policy.vars().iter().cloned().chain(own).collect();
        let sums = Arc::new(GradientSums::joined(&[&**policy.gradients(), &*sums]));
        let critic_view = match &critic {
            Critic::Separate(model) => Some(model.detached()?),
            Critic::Shared(_) | Critic::None => None,
        };
        Ok(Self { view: policy.detached()?, critic_view, policy, critic, vars, sums })
    }

    /// V of the state before each completion token; with gradients, or as the `view` without
    ///
    /// # Shapes
    /// the policy's hidden states (N, C) of the batch → (M,)
    pub fn values(&self, view: bool, batch: &Batch, policy_hidden: &Tensor) -> Result<Tensor> {
        match (&self.critic, &self.critic_view) {
            (Critic::Separate(model), separate_view) => {
                let model = separate_view.as_ref().filter(|_| view).unwrap_or(model);
                let hidden = model.backbone().hidden(&batch.ids, &batch.layout, None)?;
                model.token_scores(&hidden, &batch.rows)
            }
            (Critic::Shared(head), _) => {
                let rows = Tensor::new(&batch.rows[..], policy_hidden.device())?;
                let head = if view { head.as_tensor().detach() } else { head.as_tensor().clone() };
                Ok(policy_hidden.index_select(&rows, 0)?.broadcast_mul(&head)?.sum(1)?)
            }
            (Critic::None, _) => Ok(Tensor::zeros(batch.rows.len(), DType::F32, policy_hidden.device())?),
        }
    }

    /// Writes the critic into a checkpoint's folder; returns the numbers of a shared head
    pub fn save_critic(&self, folder: &Path) -> Result<Vec<f32>> {
        match &self.critic {
            Critic::Separate(model) => {
                let folder = folder.join(VALUE_FOLDER);
                std::fs::create_dir_all(&folder).map_err(|cause| Error::write(&folder, cause))?;
                model.save(&folder)?;
                Ok(Vec::new())
            }
            Critic::Shared(head) => Ok(head.as_tensor().flatten_all()?.to_vec1()?),
            Critic::None => Ok(Vec::new()),
        }
    }

    /// Puts back what [`Self::save_critic`] wrote
    pub fn restore_critic(&self, folder: &Path, head_numbers: Vec<f32>) -> Result<()> {
        match &self.critic {
            Critic::Separate(model) => model.restore(&folder.join(VALUE_FOLDER)),
            Critic::Shared(head) => Ok(head.set(&Tensor::from_vec(head_numbers, head.dims(), &Device::Cpu)?)?),
            Critic::None => Ok(()),
        }
    }
}

impl Trainable for Actor {
    fn vars(&self) -> &[(String, Var)] {
        &self.vars
    }

    fn gradients(&self) -> &Arc<GradientSums> {
        &self.sums
    }

    /// The policy alone
    fn save(&self, folder: &Path) -> Result<()> {
        self.policy.save(folder)
    }

    fn restore(&self, folder: &Path) -> Result<()> {
        self.policy.restore(folder)
    }
}

/// The network that values start from
fn value_network(session: &Session, online: &OnlineKeys, named: Option<&String>) -> Result<RewardModel> {
    let named = named.or(online.reward_model_name_or_path.as_ref());
    let seed = session.keys.seed;
    let model = match named {
        Some(name) => RewardModel::load_or_init(&session.hub().model(name, None)?, seed)?,
        None if session.keys.from_scratch => RewardModel::from_scratch(session.source.config.clone(), seed)?,
        None => RewardModel::load_or_init(&session.source.folder, seed)?,
    };
    let (needed, found) = (&session.source.config, model.config());
    if found.vocab_size < needed.vocab_size || found.n_positions < needed.n_positions {
        return Err(Error::usage("the value model has fewer tokens or positions than the policy")
            .hint("leave out `value_model_name_or_path`, or set `value_network: shared`"));
    }
    model.with_precision(session.precision())
}
