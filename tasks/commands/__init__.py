"""Commands beside the stages: pictures, reports, publishing, cleaning."""
