"""Supervised fine-tuning: from the base model to the SFT model."""

from quatrain.orchestrator.model_card import card_files
from quatrain.orchestrator.run import JobRun
from quatrain.orchestrator.training import Opening, begin_stage, export, open_learner, train_rows


async def run_sft(run: JobRun) -> None:
    """Trains what is left to train and exports the SFT model. Raises LearnerLost and whatever ends the job."""
    await begin_stage(run, "sft")
    opening = Opening("sft", run.plan.model, run.plan.spec["sft"], data=run.plan.sft_data)
    session = await open_learner(run, opening)
    metrics = await train_rows(run, session, "sft")
    await export(run, session, "sft", card_files(run.plan, "sft", metrics), {"metrics": metrics})
