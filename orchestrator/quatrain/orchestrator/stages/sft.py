"""Supervised fine-tuning: from the base model to the SFT model."""

from quatrain.joblog.payloads import StageReport
from quatrain.orchestrator.job.run import JobRun
from quatrain.orchestrator.stages.model_card import card_files
from quatrain.orchestrator.stages.training import Opening, begin_stage, export, open_learner, train_rows
from quatrain.stages import SFT


async def run_sft(run: JobRun) -> None:
    """Train what is left to train and export the SFT model. Raises LearnerLost and whatever ends the job."""
    await begin_stage(run, SFT)
    session = await open_learner(run, Opening(SFT, run.plan.pinned.model))
    metrics = await train_rows(run, session, SFT)
    await export(run, session, SFT, card_files(run.plan, SFT, metrics), StageReport(metrics=metrics))
