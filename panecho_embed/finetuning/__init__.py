"""Fine-tuning: recipes as data, starting points, training that resumes, evaluation by video and study."""
