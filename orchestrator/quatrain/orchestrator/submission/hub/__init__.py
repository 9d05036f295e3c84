"""Models and data on a Hugging Face Hub: `hf://ORG/NAME[@REVISION]`, `hf://datasets/ORG/NAME[@REVISION]/FILE`."""
