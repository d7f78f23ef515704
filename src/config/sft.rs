//! The keys of supervised fine-tuning.

use super::{config_choice, config_keys};
use crate::Result;

config_choice! {
    /// Loss of supervised fine-tuning
    pub enum SftLoss {
        /// Negative log-likelihood of the tokens
        Nll = "nll" | "chunked_nll",
        /// The same, each token weighted by its own probability (dynamic fine-tuning)
        Dft = "dft",
    }
}

config_choice! {
    /// How texts are put together into rows
    pub enum PackingStrategy {
        /// Best fit, longest first; what is longer than a row is cut off
        Bfd = "bfd",
        /// Best fit, longest first; what is longer than a row becomes several sequences
        BfdSplit = "bfd_split" | "bfd-requeue",
        /// One stream of tokens, cut into rows; texts of a row see each other
        Wrapped = "wrapped",
    }
}

config_keys! {
    /// The keys of supervised fine-tuning
    pub struct SftKeys {
        "Supervised fine-tuning" {
            /// Column that holds the text of rows without prompt and completion
            dataset_text_field: String = "text".to_owned();
            /// Loss on the completion alone; where not set, for rows that have one
            completion_only_loss: Option<bool> = None;
            /// Loss on the assistant's turns alone, for conversations
            assistant_only_loss: bool = false;
            /// Loss
            loss_type: SftLoss = SftLoss::Nll;
            /// Token that ends a text or turn; the tokenizer's own where not set
            eos_token: Option<String> = None;
            /// Chat template: a Jinja file, or the folder or id of a tokenizer that has one
            chat_template_path: Option<String> = None;
            /// Shuffle the rows once before anything else
            shuffle_dataset: bool = false;
            /// Put several texts into one row of `max_length` tokens; they do not see each other
            packing: bool = false;
            /// How texts are put together
            packing_strategy: PackingStrategy = PackingStrategy::Bfd;
            /// The same for held-out texts; as `packing` where not set
            eval_packing: Option<bool> = None;
        }
    }
}

impl SftKeys {
    /// How training and held-out texts are put together, where they are
    pub fn packings(&self) -> [Option<PackingStrategy>; 2] {
        let eval = self.eval_packing.unwrap_or(self.packing);
        [self.packing, eval].map(|packs| packs.then_some(self.packing_strategy))
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "every group of keys has this method")]
    fn check(&self) -> Result<()> {
        Ok(())
    }
}
