"""What triggers hear, and what audiences hold, when members come and go for other reasons than what people did."""
