"""What a person runs beside the stages: pictures, reports, publishing, cleaning."""
