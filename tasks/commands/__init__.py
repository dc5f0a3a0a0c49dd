"""Commands besides the stages: pictures, reports, publishing, cleaning."""
